//! Tests of the HTTP service: the real program, over sockets.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, GrayImage, ImageFormat};
use lenet5_core::files::write_atomic;
use lenet5_core::{Array, Network, Weights};
use serde_json::{Value, json};

use crate::ended::handling;
use crate::util::{Ended, digits, encoded, grey, in_repository, program, temp};

/// A test image of MNIST that both networks classify correctly, as PNG, and its label.
struct Sample {
    png: Vec<u8>,
    label: u64,
}

fn samples() -> &'static [Sample] {
    static SAMPLES: OnceLock<Vec<Sample>> = OnceLock::new();
    SAMPLES.get_or_init(|| {
        let (pictures, labels) = digits(8);
        let sample = |(pixels, label)| Sample { png: png(&grey(pixels)), label };
        pictures.iter().zip(labels.into_iter().map(u64::from)).map(sample).collect()
    })
}

fn png(picture: &DynamicImage) -> Vec<u8> {
    encoded(picture, ImageFormat::Png)
}

fn black(width: u32, height: u32) -> Vec<u8> {
    png(&GrayImage::new(width, height).into())
}

/// A running `serve`, which is killed when this is dropped.
struct Service {
    child: Child,
    address: SocketAddr,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    fn start(arguments: &[&str]) -> Self {
        Self::logging(arguments, Stdio::inherit())
    }

    /// Starts the service with warnings and errors on `log`.
    fn logging(arguments: &[&str], log: Stdio) -> Self {
        Self::by(program("serve"), arguments, log)
    }

    /// Starts the service by a command, which may have settings of its own.
    fn by(mut command: Command, arguments: &[&str], log: Stdio) -> Self {
        if !arguments.iter().any(|argument| argument.starts_with("--addr")) {
            command.arg("--addr=127.0.0.1:0");
        }
        command.args(arguments).env("RUST_LOG", "warn");
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").expect("the address");
        Self { address: address.parse().unwrap(), child }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(BufReader::new(stream))
    }

    /// Sends a request on a new connection.
    fn send(&self, request: &[u8]) -> Response {
        let mut client = self.connect();
        client.send(request);
        client.response()
    }

    fn get(&self, path: &str) -> Response {
        self.send(&request("GET", path, &[], b""))
    }

    fn predict(&self, picture: &[u8]) -> Response {
        self.send(&post("/v1/predict", picture))
    }

    /// The value of a line of the metrics, such as `lenet5_digits_total{model="modern"}`; 0 if there is no such line.
    fn metric(&self, name: &str) -> f64 {
        let text = String::from_utf8(self.get("/metrics").body).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a metric has this value.
    #[track_caller]
    fn wait_for(&self, name: &str, expected: f64) {
        let mut found = 0.0;
        for _ in 0..1000 {
            found = self.metric(name);
            if found == expected {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("{name}: expected {expected}, found {found}");
    }

    /// Waits until the first of the samples is read as this text.
    #[track_caller]
    fn wait_until_it_reads(&self, text: &str) {
        for _ in 0..1000 {
            if self.predict(&samples()[0].png).json()["text"] == text {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("expected the reading {text}");
    }

    /// Waits until this number of pictures wait or are being read.
    #[track_caller]
    fn wait_for_queue(&self, depth: f64) {
        self.wait_for("lenet5_queue_depth{model=\"modern\"}", depth);
    }

    #[allow(unsafe_code)]
    fn signal(&self, signal: i32) {
        // SAFETY: the process is a child of ours, and has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        // The service may respond and close the connection before it has received everything.
        let _ = self.0.get_mut().write_all(bytes);
    }

    fn response(&mut self) -> Response {
        self.try_response().expect("a response")
    }

    /// None if the connection ends without a response.
    fn try_response(&mut self) -> Option<Response> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let response = Response { status, head: head.to_ascii_lowercase(), body: Vec::new() };
        let mut body = vec![0; response.header("content-length").map_or(0, |n| n.parse().unwrap())];
        self.0.read_exact(&mut body).ok()?;
        Some(Response { body, ..response })
    }

    fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
    }
}

#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    fn fails_with(&self, status: u16, code: &str, message: &str) {
        let expected = json!({"error": {"code": code, "message": message}});
        assert_eq!((self.status, self.json()), (status, expected));
        assert_eq!(self.header("retry-after"), (status == 503).then_some("1"));
    }

    /// A response of hyper itself, to a request that it cannot parse.
    #[track_caller]
    fn is_empty_with(&self, status: u16) {
        assert_eq!((self.status, self.header("content-length")), (status, Some("0")), "{self:?}");
        assert_eq!(self.header("connection"), Some("close"));
    }

    #[track_caller]
    fn reads(&self, label: u64) {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.json()["text"], label.to_string());
    }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if matches!(method, "POST" | "DELETE") {
        let _ = write!(head, "content-length: {}\r\n", body.len());
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

fn post(path: &str, picture: &[u8]) -> Vec<u8> {
    request("POST", path, &[("content-type", "image/png")], picture)
}

fn typed(kind: &str, body: &[u8]) -> Vec<u8> {
    request("POST", "/v1/predict", &[("content-type", kind)], body)
}

const MULTIPART: &str = "multipart/form-data; boundary=XX";

fn multipart(file: &[u8]) -> Vec<u8> {
    let head = b"--XX\r\ncontent-disposition: form-data; name=\"note\"\r\n\r\nno file\r\n\
        --XX\r\ncontent-disposition: form-data; name=\"any\"; filename=\"7.png\"\r\n\
        content-type: image/png\r\n\r\n";
    [&head[..], file, b"\r\n--XX--\r\n"].concat()
}

fn in_json(file: &[u8], prefix: &str) -> Vec<u8> {
    json!({"image": format!("{prefix}{}", STANDARD.encode(file))}).to_string().into_bytes()
}

#[test]
fn three_forms_of_the_body() {
    let service = Service::start(&[]);
    for Sample { png, label } in samples() {
        let responses = [
            service.predict(png),
            service.send(&request("POST", "/v1/predict", &[], png)),
            service.send(&request("POST", "/v1/predict?model=modern", &[], png)),
            service.send(&typed("application/octet-stream", png)),
            service.send(&typed(MULTIPART, &multipart(png))),
            service.send(&typed("application/json; charset=utf-8", &in_json(png, ""))),
            service.send(&typed("application/json", &in_json(png, "data:image/png;base64,"))),
        ];
        for response in &responses {
            response.reads(*label);
            assert_eq!(response.body, responses[0].body);
        }
        let json = responses[0].json();
        let keys = |value: &Value| {
            let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys
        };
        // The keys are in the type's order, not sorted.
        assert!(responses[0].body.starts_with(b"{\"model\":\"modern\",\"text\":"));
        assert_eq!(
            keys(&json),
            ["accepted", "digits", "left_out", "model", "other_lines", "rejected", "score", "text"]
        );
        assert_eq!((&json["model"], &json["rejected"]), (&json!("modern"), &json!(false)));
        let digit = &json["digits"][0];
        assert_eq!(
            keys(digit),
            ["box", "confidence", "label", "line", "probabilities", "rejected"]
        );
        assert_eq!(digit["label"], *label);
        assert_eq!(digit["probabilities"].as_array().unwrap().len(), 10);

        let original = service.send(&post("/v1/predict?model=original", png));
        original.reads(*label);
        assert_eq!(original.json()["model"], "original");
    }
}

#[test]
fn own_weights_are_the_default() {
    let folder = temp();
    let path = folder.path().join("own.pth");
    let weights = Weights::shipped(Network::Original).unwrap();
    fs::write(&path, weights.to_state_dict().unwrap()).unwrap();
    let service = Service::start(&[&format!("--weights={}", path.display()), "--reject-below=1"]);
    let Sample { png, label } = &samples()[0];
    let response = service.predict(png);
    response.reads(*label);
    let json = response.json();
    assert_eq!((&json["model"], &json["rejected"]), (&json!("original"), &json!(true)));
    let modern = service.send(&post("/v1/predict?model=modern", png));
    assert_eq!(modern.json()["model"], "modern");
}

#[test]
fn lines_of_a_known_form() {
    let service = Service::start(&[]);
    let small = fs::read(in_repository("tests/pictures/407.png")).unwrap();
    // A large body is read without the queue.
    let large = [&small[..], &vec![0; 100 << 10]].concat();
    for picture in [&small, &large] {
        for query in ["digits=3", "digits=2-9", "pattern=%23%237", "pattern=4-%23%23"] {
            service.send(&post(&format!("/v1/predict?{query}"), picture)).reads(407);
        }
        service.send(&post("/v1/predict?digits=5", picture)).fails_with(
            422,
            "no_digits",
            "expected a line of 5 digits, found 407",
        );
        let layers = service.send(&post("/v1/activations?pattern=40%23&digit=2", picture));
        assert_eq!(layers.json()["reading"]["text"], "407");
    }
}

#[test]
fn outputs_of_the_layers() {
    let service = Service::start(&[]);
    let Sample { png, label } = &samples()[0];
    for (model, codes) in [("modern", false), ("original", true)] {
        let response = service.send(&post(&format!("/v1/activations?model={model}&digit=0"), png));
        assert_eq!(response.status, 200);
        let json = response.json();
        assert_eq!((&json["model"], &json["digit"]), (&json!(model), &json!(0)));
        assert_eq!(json["reading"]["text"], label.to_string());
        let layers = json["layers"].as_array().unwrap();
        let names: Vec<_> = layers.iter().map(|layer| layer["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["input", "c1", "s2", "c3", "s4", "c5", "f6", "output"]);
        for layer in layers {
            let shape = layer["shape"].as_array().unwrap();
            let size: u64 = shape.iter().map(|size| size.as_u64().unwrap()).product();
            assert_eq!(layer["values"].as_array().unwrap().len() as u64, size);
        }
        let pixels = json["pixels"].as_array().unwrap();
        assert_eq!(pixels.len(), 784);
        assert!(pixels.iter().any(|pixel| pixel.as_u64() == Some(255)));
        assert_eq!(json.get("codes").is_some(), codes);
        if let Some(codes) = json.get("codes") {
            let sizes: Vec<_> = codes
                .as_array()
                .unwrap()
                .iter()
                .map(|code| code.as_array().unwrap().len())
                .collect();
            assert_eq!(sizes, [84; 10]);
        }
        assert!(response.body.len() < 128 << 10, "{} bytes", response.body.len());
    }
    service.send(&post("/v1/activations?digit=1", png)).fails_with(
        400,
        "bad_digit",
        &format!("digit: expected 0 to 0 of the digits \"{label}\", found 1"),
    );
}

#[test]
fn errors_are_json() {
    let service = Service::start(&[]);
    let png = &samples()[0].png;
    let predict = |kind: &str, body: &[u8]| typed(kind, body);
    let json = |body: &str| typed("application/json", body.as_bytes());
    let image = "expected {\"image\": \"<base64>\"}, found";
    let base64 = "image: expected base64, or a data: URL of it, found";
    let table: &[(Vec<u8>, u16, &str, &str)] = &[
        (
            request("GET", "/v2/predict", &[], b""),
            404,
            "not_found",
            "there is no /v2/predict; /openapi.json lists what there is",
        ),
        (
            request("GET", "/v1/predict", &[], b""),
            405,
            "method_not_allowed",
            "/v1/predict takes POST, OPTIONS, found GET",
        ),
        (
            request("POST", "/", &[], b""),
            405,
            "method_not_allowed",
            "/ takes GET, HEAD, OPTIONS, found POST",
        ),
        (
            predict("text/html", b"<p>"),
            415,
            "unsupported_media_type",
            "expected a picture, or the content type image/*, application/octet-stream, \
             multipart/form-data or application/json, found text/html; with curl: -F image=@7.png",
        ),
        (
            post("/v1/predict?model=lenet4", png),
            400,
            "bad_query",
            "model: expected modern or original, found lenet4",
        ),
        (
            post("/v1/predict?modle=modern", png),
            400,
            "bad_query",
            "expected model, digits, pattern in the query, found modle",
        ),
        (
            post("/v1/predict?digits=0-3", png),
            400,
            "bad_query",
            "digits: expected a number of digits from 1 to 100, or a range of such numbers, found \
             0 to 3",
        ),
        (
            post("/v1/predict?pattern=", png),
            400,
            "bad_query",
            "pattern: expected # for any digit, 0 to 9, and marks (-.,/:+() and spaces), found \
             nothing; in a URL # is written as %23",
        ),
        (
            post("/v1/predict?pattern=%23&digits=1", png),
            400,
            "bad_query",
            "expected digits or pattern in the query, found both",
        ),
        (
            post("/v1/activations?digit=-1", png),
            400,
            "bad_query",
            "digit: expected the number of a digit from 0, found -1",
        ),
        (
            post("/v1/predict?model=modern&model=original", png),
            400,
            "bad_query",
            "model: expected one value, found more",
        ),
        (
            request("POST", "/v1/predict", &[("content-encoding", "gzip")], png),
            415,
            "unsupported_media_type",
            "expected a body without content encoding, found gzip",
        ),
        (
            predict(
                MULTIPART,
                &[multipart(png).strip_suffix(b"--\r\n").unwrap(), b"\r\n", &multipart(png)[6..]]
                    .concat(),
            ),
            400,
            "several_pictures",
            "expected one field with a file, found 2",
        ),
        (
            json("{"),
            400,
            "bad_json",
            &format!("{image} EOF while parsing an object at line 1 column 1"),
        ),
        (json("{}"), 400, "bad_json", &format!("{image} missing field `image` at line 1 column 2")),
        (
            json("{\"image\": 7}"),
            400,
            "bad_json",
            &format!("{image} invalid type: integer `7`, expected a string at line 1 column 11"),
        ),
        (
            json("{\"image\": \"?\"}"),
            400,
            "bad_base64",
            &format!("{base64} Invalid symbol 63, offset 0."),
        ),
        (
            json("{\"image\": \"data:image/png,x\"}"),
            400,
            "bad_base64",
            &format!("{base64} a data: URL without ;base64,"),
        ),
        (
            predict("multipart/form-data", png),
            400,
            "bad_multipart",
            "multipart/form-data: expected a boundary in the content type, found none",
        ),
        (
            predict(
                MULTIPART,
                b"--XX\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\nb\r\n--XX--\r\n",
            ),
            400,
            "no_picture",
            "expected a field with a file, found none",
        ),
        (predict("image/png", b""), 400, "no_picture", "expected a picture's file, found 0 bytes"),
        (json("{\"image\": \"\"}"), 400, "no_picture", "expected a picture's file, found 0 bytes"),
    ];
    for (request, status, code, message) in table {
        service.send(request).fails_with(*status, code, message);
    }
    let allowed = service.get("/v1/predict");
    assert_eq!(allowed.header("allow"), Some("post, options"));

    // The messages of the decoder are not compared.
    for (name, body) in [
        ("garbage", b"no picture".to_vec()),
        ("a truncated PNG", png[..png.len() / 2].to_vec()),
        ("a broken multipart", multipart(b"no picture")),
    ] {
        let kind = if name.ends_with("multipart") { MULTIPART } else { "image/png" };
        let response = service.send(&predict(kind, &body));
        assert_eq!(
            (response.status, &response.json()["error"]["code"]),
            (422, &json!("not_a_picture"))
        );
    }
    let broken = service.send(&predict(MULTIPART, b"--XX\r\nwhat?"));
    assert_eq!((broken.status, &broken.json()["error"]["code"]), (400, &json!("bad_multipart")));
    service.predict(png).reads(samples()[0].label);
}

/// A picture is read with any content type, and base64 in all variants.
#[test]
fn requests_of_other_programs() {
    let service = Service::start(&[]);
    let Sample { png, label } = &samples()[0];
    // curl --data-binary @7.png
    service.send(&typed("application/x-www-form-urlencoded", png)).reads(*label);
    let text = STANDARD.encode(png);
    let lines: Vec<_> = text.as_bytes().chunks(76).map(String::from_utf8_lossy).collect();
    let for_urls = text.replace('+', "-").replace('/', "_");
    for base64 in [lines.join("\r\n"), for_urls.trim_end_matches('=').to_owned()] {
        let body = json!({ "image": base64 }).to_string();
        service.send(&typed("application/json", body.as_bytes())).reads(*label);
    }
}

#[test]
fn text_if_the_accept_header_prefers_it() {
    let service = Service::start(&[]);
    let Sample { png, label } = &samples()[0];
    for (accept, text) in [
        ("text/plain", true),
        ("text/*;q=0.9, application/json;q=0.8", true),
        ("*/*", false),
        ("text/plain;q=0.5, */*", false),
        ("application/json, text/plain;q=0.9", false),
    ] {
        let response = service.send(&request("POST", "/v1/predict", &[("accept", accept)], png));
        assert_eq!(response.status, 200);
        assert_eq!(response.body == label.to_string().as_bytes(), text, "{accept}");
    }
}

#[test]
fn head_and_options() {
    let service = Service::start(&[]);
    for path in ["/", "/healthz", "/openapi.json", "/metrics", "/style.css"] {
        let mut client = service.connect();
        client.send(&request("HEAD", path, &[("connection", "close")], b""));
        let mut text = String::new();
        client.0.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n"), "{text}");
        let response = service.send(&request("OPTIONS", path, &[], b""));
        assert_eq!((response.status, response.header("allow")), (204, Some("get, head, options")));
    }
    let response = service.send(&request("OPTIONS", "/v1/predict", &[], b""));
    assert_eq!((response.status, response.header("allow")), (204, Some("post, options")));
}

/// DNS rebinding: a page from a host whose name points to 127.0.0.1 is refused.
#[test]
fn foreign_hosts_and_origins_are_refused() {
    let service = Service::start(&["--allow-host=digits.test", "--allow-origin=https://a.test"]);
    let Sample { png, label } = &samples()[0];
    let with = |method: &str, path: &str, host: &str, headers: &[(&str, &str)]| {
        let text = String::from_utf8_lossy(&request(method, path, headers, png)).into_owned();
        let head = text.split("\r\n\r\n").next().unwrap().replace("host: localhost", host);
        let body: &[u8] = if method == "POST" { png } else { b"" };
        service.send(&[head.as_bytes(), b"\r\n\r\n", body].concat())
    };
    for host in
        ["localhost:8080", "127.0.0.1", "127.1.2.3:1", "[::1]:8080", "Digits.test", "a.localhost"]
    {
        let response = with("POST", "/v1/predict", &format!("host: {host}"), &[]);
        response.reads(*label);
    }
    for host in ["evil.test", "127.0.0.1.evil.test:80", "10.0.0.1", "localhost.evil.test", "@"] {
        for (method, path) in [("POST", "/v1/predict"), ("GET", "/"), ("GET", "/metrics")] {
            let response = with(method, path, &format!("host: {host}"), &[]);
            let code = response.json()["error"]["code"].clone();
            assert_eq!((response.status, code), (403, json!("forbidden_host")), "{host} {path}");
        }
    }
    for (origin, status) in [
        ("http://localhost:8080", 200),
        ("http://127.0.0.1:3000", 200),
        ("https://a.test", 200),
        ("https://b.test", 403),
        ("null", 403),
    ] {
        let response = with("POST", "/v1/predict", "host: localhost", &[("origin", origin)]);
        assert_eq!(response.status, status, "{origin}");
        let allowed = (origin == "https://a.test").then_some(origin);
        assert_eq!(response.header("access-control-allow-origin"), allowed);
    }
    // The preflight request that a browser sends before a page's request.
    let preflight = [("origin", "https://a.test"), ("access-control-request-method", "POST")];
    let response = with("OPTIONS", "/v1/predict", "host: localhost", &preflight);
    assert_eq!(response.header("access-control-allow-origin"), Some("https://a.test"));
    Ended::from(program("serve").arg("--allow-origin=a.test").output().unwrap())
        .fails_with("allow-origin: expected an origin such as https://example.org, found a.test");
}

/// A client that closes its sending direction after the request, as `nc -N` does.
#[test]
fn a_half_closed_connection_gets_its_response() {
    let service = Service::start(&[]);
    let Sample { png, label } = &samples()[0];
    for _ in 0..20 {
        let mut client = service.connect();
        client.send(&post("/v1/predict", png));
        client.0.get_ref().shutdown(Shutdown::Write).unwrap();
        client.response().reads(*label);
    }
}

/// All addresses of 127.0.0.0/8 are this machine, and each address counts as a separate client.
#[test]
fn one_client_does_not_keep_others_out() {
    let service = Service::start(&["--max-per-client=3"]);
    let from = |last: u8| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let own: SocketAddr = ([127, 0, 0, last], 0).into();
        socket.bind(&own.into()).unwrap();
        socket.connect(&service.address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Client(BufReader::new(stream))
    };
    let healthy = request("GET", "/healthz", &[], b"");
    let mut held: Vec<_> = (0..3).map(|_| from(2)).collect();
    for client in &mut held {
        client.send(&healthy);
        assert_eq!(client.response().status, 200);
    }
    let refused = from(2).response();
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(refused.json()["error"]["code"], "too_many_connections");
    let mut other = from(3);
    other.send(&healthy);
    assert_eq!(other.response().status, 200);
    // The end of a connection makes room for another.
    held.pop();
    for attempt in 0.. {
        let mut client = from(2);
        client.send(&healthy);
        if client.response().status == 200 {
            break;
        }
        assert!(attempt < 100);
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_empty_picture_has_no_digits() {
    let service = Service::start(&[]);
    for (width, height) in [(28, 28), (1000, 700)] {
        let response = service.predict(&black(width, height));
        assert_eq!(
            (response.status, &response.json()["error"]["code"]),
            (422, &json!("no_digits"))
        );
    }
}

#[test]
fn limits_from_both_sides() {
    const MIB: usize = 1 << 20;
    let service = Service::start(&["--max-body=1", "--max-pixels=1"]);
    let Sample { png, label } = &samples()[0];
    // Bytes after the end of a PNG are not read.
    let padded = |size: usize| [&png[..], &vec![0; size - png.len()]].concat();
    service.predict(&padded(MIB)).reads(*label);
    let large = format!("expected a body of at most {MIB} bytes, found");
    let too_large = |response: Response, found: &str| {
        response.fails_with(413, "body_too_large", &format!("{large} {found}"));
        assert_eq!(response.header("connection"), Some("close"));
    };
    too_large(service.predict(&padded(MIB + 1)), "1048577");
    too_large(service.predict(&padded(20 * MIB)), "20971520");

    let chunked = |body: &[u8]| {
        let head =
            "POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
        let size = format!("{:x}\r\n", body.len());
        service.send(&[head.as_bytes(), size.as_bytes(), body, b"\r\n0\r\n\r\n"].concat())
    };
    chunked(&padded(MIB)).reads(*label);
    too_large(chunked(&padded(MIB + 1)), "more");

    assert_eq!(service.predict(&black(1000, 1000)).status, 422);
    let many = "expected a picture of at most 1000000 pixels, found";
    let too_many = |picture: &[u8], found: &str| {
        let message = format!("{many} {found}");
        service.predict(picture).fails_with(413, "picture_too_large", &message);
    };
    too_many(&black(1000, 1001), "1000x1001");
    too_many(&black(10_000, 10_000), "10000x10000");

    // The host and the length are headers too.
    let headers = |count: usize| {
        let headers: Vec<_> = (0..count).map(|_| ("x", "y")).collect();
        service.send(&request("POST", "/v1/predict", &headers, png))
    };
    headers(98).reads(*label);
    headers(99).is_empty_with(431);
    let long = "y".repeat(70_000);
    service.send(&request("GET", "/", &[("x", &long)], b"")).is_empty_with(431);
    // The limit of the whole head comes before any limit of the URL alone.
    for length in [65_534, 65_535, 70_000] {
        service
            .send(&request("GET", &format!("/{}", "y".repeat(length)), &[], b""))
            .is_empty_with(431);
    }
    let refused = "lenet5_requests_total{route=\"none\",status=\"431\"}";
    service.wait_for(refused, 5.0);
    service.predict(png).reads(*label);
}

#[test]
fn what_cannot_be_parsed_gets_an_empty_response() {
    let service = Service::start(&[]);
    let refused = "lenet5_requests_total{route=\"none\",status=\"400\"}";
    let table: [&[u8]; 5] = [
        b"no HTTP at all\r\n\r\n",
        b"GET / HTTP/3.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nno header\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\n",
    ];
    for (number, bytes) in (1..).zip(table) {
        let mut client = service.connect();
        client.send(bytes);
        client.response().is_empty_with(400);
        assert!(client.is_closed());
        service.wait_for(refused, f64::from(number));
    }
    // hyper itself sends nothing here.
    let mut client = service.connect();
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let message = "expected a request of HTTP/1.1, found HTTP/2";
    client.response().fails_with(400, "bad_request", message);
    assert!(client.is_closed());
    service.wait_for(refused, 6.0);
    // An error after a good request on the same connection.
    let mut client = service.connect();
    client.send(&request("GET", "/healthz", &[], b""));
    assert_eq!(client.response().status, 200);
    client.send(b"no HTTP at all\r\n\r\n");
    client.response().is_empty_with(400);
    service.wait_for(refused, 7.0);
}

#[test]
fn slow_clients() {
    let service = Service::start(&["--timeout=1"]);
    let Sample { png, label } = &samples()[0];
    let whole = post("/v1/predict", png);
    let slow = |sent: &[u8], part: &str| {
        let mut client = service.connect();
        client.send(sent);
        let message = format!("expected the request's {part} within 1 s, found part of it");
        client.response().fails_with(408, "slow_request", &message);
        assert!(client.is_closed());
    };
    thread::scope(|scope| {
        scope.spawn(|| slow(&whole[..20], "head"));
        scope.spawn(|| slow(&whole[..whole.len() - 1], "body"));
        scope.spawn(|| slow(&whole[..whole.len() - png.len()], "body"));
        // A client that sends nothing gets no response.
        scope.spawn(|| assert!(service.connect().is_closed()));
        scope.spawn(|| {
            let mut idle = service.connect();
            idle.send(&whole);
            idle.response().reads(*label);
            assert!(idle.is_closed());
        });
    });
}

#[test]
fn too_much_at_once() {
    let Sample { png, label } = &samples()[0];
    let whole = post("/v1/predict", png);
    let service = Service::start(&["--queue=2", "--batch-wait=1500000"]);
    let mut waiting = [service.connect(), service.connect()];
    for client in &mut waiting {
        client.send(&whole);
    }
    service.wait_for_queue(2.0);
    let message = "expected at most 2 pictures at once, found more";
    service.send(&whole).fails_with(503, "busy", message);
    // A large picture does not go through the queue.
    assert_eq!(service.predict(&black(1000, 1000)).status, 422);
    for client in &mut waiting {
        client.response().reads(*label);
    }

    let service = Service::start(&["--max-connections=1"]);
    let mut first = service.connect();
    first.send(&whole);
    first.response().reads(*label);
    let message = "expected at most 1 connections at once, found more";
    service.send(&whole).fails_with(503, "busy", message);
    first.send(&whole);
    first.response().reads(*label);
}

#[test]
fn a_result_that_takes_too_long() {
    let service = Service::start(&["--timeout=0.2", "--batch-wait=1000000"]);
    let response = service.predict(&samples()[0].png);
    response.fails_with(503, "timed_out", "expected a result within 0.2 s, found none");
}

#[test]
fn many_clients_get_their_own_results() {
    const CLIENTS: usize = 16;
    const REQUESTS: usize = 24;
    let service = Service::start(&[]);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let service = &service;
            scope.spawn(move || {
                let mut connection = service.connect();
                for request in 0..REQUESTS {
                    let Sample { png, label } = &samples()[(client + request) % samples().len()];
                    let model = if request % 3 == 0 { "original" } else { "modern" };
                    connection.send(&post(&format!("/v1/predict?model={model}"), png));
                    let response = connection.response();
                    response.reads(*label);
                    assert_eq!(response.json()["model"], model);
                }
            });
        }
    });
    let all = (CLIENTS * REQUESTS) as f64;
    for (name, expected) in [
        ("lenet5_requests_total{route=\"/v1/predict\",status=\"200\"}", all),
        ("lenet5_request_duration_seconds_count{route=\"/v1/predict\"}", all),
        ("lenet5_digits_total{model=\"modern\"}", all * 2.0 / 3.0),
        ("lenet5_digits_total{model=\"original\"}", all / 3.0),
        ("lenet5_batch_size_sum{model=\"modern\"}", all * 2.0 / 3.0),
        ("lenet5_queue_depth{model=\"modern\"}", 0.0),
        // The metrics request itself is in flight.
        ("lenet5_requests_in_flight", 1.0),
    ] {
        assert_eq!(service.metric(name), expected, "{name}");
    }
    service.get("/no/such/route");
    assert_eq!(service.metric("lenet5_requests_total{route=\"other\",status=\"404\"}"), 1.0);
}

#[test]
fn pipelined_requests_get_responses_in_order() {
    let service = Service::start(&[]);
    let mut client = service.connect();
    let requests: Vec<_> =
        samples().iter().map(|sample| post("/v1/predict", &sample.png)).collect();
    client.send(&requests.concat());
    for sample in samples() {
        client.response().reads(sample.label);
    }
}

#[test]
fn a_connection_outlives_errors() {
    let service = Service::start(&[]);
    let Sample { png, label } = &samples()[0];
    let mut client = service.connect();
    for (request, status) in [
        (post("/v2/predict", png), 404),
        (post("/", png), 405),
        (post("/v1/predict?model=", png), 400),
        (typed("text/html", &[b' '; 99]), 415),
        (typed("application/json", png), 400),
        (typed("image/png", &png[..99]), 422),
        (post("/v1/activations?digit=9", png), 400),
    ] {
        // The end of the body follows when the service has received the head.
        let (head, body) = request.split_at(request.len() - 50);
        client.send(head);
        thread::sleep(Duration::from_millis(20));
        client.send(body);
        assert_eq!(client.response().status, status);
    }
    client.send(&post("/v1/predict", png));
    client.response().reads(*label);
}

#[test]
fn accepted_requests_are_finished() {
    let Sample { png, label } = &samples()[0];
    let mut service = Service::start(&["--batch-wait=700000"]);
    let mut idle = service.connect();
    idle.send(&request("GET", "/healthz", &[], b""));
    assert_eq!(idle.response().json(), json!({"status": "ok"}));
    let mut client = service.connect();
    client.send(&post("/v1/predict", png));
    service.wait_for_queue(1.0);
    service.signal(libc::SIGTERM);
    assert!(idle.is_closed());
    let response = client.response();
    response.reads(*label);
    assert_eq!(response.header("connection"), Some("close"));
    assert!(client.is_closed());
    assert_eq!(service.code(), Some(0));
    assert!(TcpStream::connect(service.address).is_err());
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut service = Service::start(&["--batch-wait=10000000", "--timeout=30"]);
    let mut client = service.connect();
    client.send(&post("/v1/predict", &samples()[0].png));
    service.wait_for_queue(1.0);
    service.signal(libc::SIGINT);
    while TcpStream::connect(service.address).is_ok() {
        thread::sleep(Duration::from_millis(5));
    }
    service.signal(libc::SIGINT);
    assert_eq!(service.code(), Some(130));
}

#[test]
fn stopping_waits_no_longer_than_the_timeout() {
    let mut service = Service::start(&["--batch-wait=10000000", "--timeout=0.3"]);
    let mut client = service.connect();
    client.send(&post("/v1/predict", &samples()[0].png));
    service.wait_for_queue(1.0);
    service.signal(libc::SIGTERM);
    assert_eq!(service.code(), Some(0));
}

#[test]
fn an_address_in_use() {
    let service = Service::start(&[]);
    let address = service.address;
    Ended::from(program("serve").arg(format!("--addr={address}")).output().unwrap())
        .fails_with(&format!("listening on {address}: Address already in use (os error 98)"));
}

#[test]
fn the_description_names_all_routes() {
    let folder = temp();
    let service = Service::start(&[&format!("--keep={}", folder.path().display())]);
    let description = service.get("/openapi.json").json();
    assert_eq!(description["openapi"], "3.1.0");
    let paths = description["paths"].as_object().unwrap();
    let mut names: Vec<_> = paths.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "/",
            "/healthz",
            "/metrics",
            "/openapi.json",
            "/v1/activations",
            "/v1/corrections",
            "/v1/predict"
        ]
    );
    let Sample { png, .. } = &samples()[0];
    // DELETE may come before POST.
    let name = service.correct("3", png).json()["name"].clone();
    let with_query = |method: &str, path: &str| match (path, method) {
        ("/v1/corrections", "post") => format!("{path}?label=7"),
        ("/v1/corrections", _) => format!("{path}?name={}", name.as_str().unwrap()),
        _ => path.to_owned(),
    };
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            let target = with_query(method, path);
            let response = service.send(&request(&method.to_uppercase(), &target, &[], png));
            assert_eq!(response.status, 200, "{method} {path}");
            let kind = response.header("content-type").unwrap().split(';').next().unwrap();
            let described = &operation["responses"]["200"]["content"];
            assert!(described.get(kind).is_some(), "{method} {path}: {kind}");
        }
    }
    references_resolve(&description, &description);
}

fn references_resolve(part: &Value, whole: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref") {
                let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
                assert!(whole.pointer(pointer).is_some(), "{pointer}");
            }
            fields.values().for_each(|field| references_resolve(field, whole));
        }
        Value::Array(items) => items.iter().for_each(|item| references_resolve(item, whole)),
        _ => {}
    }
}

#[test]
fn the_page() {
    let service = Service::start(&[]);
    for (path, kind) in
        [("/", "text/html"), ("/style.css", "text/css"), ("/worker.js", "text/javascript")]
    {
        let response = service.get(path);
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some(&*format!("{kind}; charset=utf-8")));
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(response.header("cache-control"), Some("no-cache"));
        let policy = response.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'self'; script-src 'self' 'wasm-unsafe-eval';"),
            "{policy}"
        );
    }
}

#[test]
fn a_line_of_the_log_for_each_request() {
    let mut command = program("serve");
    command.args(["--addr=127.0.0.1:0", "--log=json"]).env_remove("RUST_LOG");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap().parse().unwrap();
    let mut service = Service { child, address };
    let response = service.predict(b"no picture");
    service.signal(libc::SIGTERM);
    assert_eq!(service.code(), Some(0));
    let lines: Vec<Value> = BufReader::new(stderr)
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    let line = lines.iter().find(|line| line["message"] == "request").unwrap();
    let fields = ["level", "method", "path", "status", "bytes"].map(|name| &line[name]);
    let bytes = json!(response.body.len());
    let expected = [&json!("INFO"), &json!("POST"), &json!("/v1/predict"), &json!(422), &bytes];
    assert_eq!(fields, expected);
    assert!(line["milliseconds"].is_number());
}

#[test]
fn a_mix_of_good_and_bad_requests() {
    const CLIENTS: u64 = 12;
    const REQUESTS: usize = 60;
    let service = Service::start(&["--max-pixels=1"]);
    let before = service.descriptors();
    let bomb = black(5000, 5000);
    let large = black(900, 900);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (service, bomb, large) = (&service, &bomb, &large);
            scope.spawn(move || {
                let mut connection = service.connect();
                // Xorshift, with the client's number as seed.
                let mut state = client * 0x9e37_79b9 + 1;
                for _ in 0..REQUESTS {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let Sample { png, label } = &samples()[(state >> 8) as usize % samples().len()];
                    let cut = (state >> 16) as usize % png.len();
                    let (request, expected): (_, &[u16]) = match state % 10 {
                        0 => (typed("image/png", &png[..cut]), &[400, 422]),
                        1 => (typed("application/json", &png[..cut]), &[400]),
                        2 => (typed("text/plain", png), &[200]),
                        3 => (typed(MULTIPART, &multipart(&png[..cut])), &[400, 422]),
                        4 => (post("/v1/predict", bomb), &[413]),
                        5 => (post("/v1/predict", large), &[200, 422]),
                        6 => {
                            // This client closes the connection in the middle of its request.
                            let mut gone = service.connect();
                            let whole = post("/v1/predict", png);
                            gone.send(&whole[..whole.len() - png.len() + cut]);
                            gone.0.get_ref().shutdown(Shutdown::Both).unwrap();
                            continue;
                        }
                        _ => (post("/v1/predict", png), &[200]),
                    };
                    connection.send(&request);
                    let response = connection.response();
                    assert!(expected.contains(&response.status), "{}: {response:?}", state % 10);
                    if expected == [200] {
                        response.reads(*label);
                    }
                    if response.header("connection") == Some("close") {
                        connection = service.connect();
                    }
                }
            });
        }
    });
    for _ in 0..500 {
        if service.descriptors() == before {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(service.descriptors(), before);
    service.predict(&samples()[0].png).reads(samples()[0].label);
}

/// The files in a folder of corrections, such as `7/0123456789abcdef.png`, in alphabetical order.
fn kept(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for label in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        for file in fs::read_dir(&label).unwrap().map(|entry| entry.unwrap().path()) {
            files.push(file.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
        }
    }
    files.sort();
    files
}

fn keeping(folder: &Path, options: &[&str]) -> Service {
    let keep = format!("--keep={}", folder.display());
    Service::start(&[&[&*keep], options].concat())
}

impl Service {
    fn correct(&self, label: &str, picture: &[u8]) -> Response {
        self.send(&post(&format!("/v1/corrections?label={label}"), picture))
    }

    fn take_back(&self, name: &str) -> Response {
        self.send(&request("DELETE", &format!("/v1/corrections?name={name}"), &[], b""))
    }
}

#[test]
fn corrections_are_kept_moved_and_taken_back() {
    let folder = temp();
    let folder = folder.path().join("new/folder");
    let service = keeping(&folder, &[]);
    let Sample { png: first, .. } = &samples()[0];
    let Sample { png: second, .. } = &samples()[1];
    let stored = service.correct("7", first).json();
    let name = stored["name"].as_str().unwrap();
    assert_eq!(stored, json!({"label": 7, "name": name, "count": 1}));
    // The same pixels again count once, in whatever form they arrive.
    let colours = png(&image::load_from_memory(first).unwrap().to_rgba8().into());
    assert_eq!(service.correct("7", &colours).json(), stored);
    let form = request(
        "POST",
        "/v1/corrections?label=7",
        &[("content-type", MULTIPART)],
        &multipart(first),
    );
    assert_eq!(service.send(&form).json(), stored);
    assert_eq!(kept(&folder), [format!("7/{name}.png")]);
    let file = image::open(folder.join(format!("7/{name}.png"))).unwrap();
    assert_eq!(file.color(), image::ColorType::L8);
    assert_eq!(file.into_luma8().into_raw(), digits(1).0[0]);

    assert_eq!(service.correct("1", first).json(), json!({"label": 1, "name": name, "count": 1}));
    assert_eq!(kept(&folder), [format!("1/{name}.png")]);
    let other = service.correct("0", second).json();
    assert_eq!(other["count"], 2);
    assert_eq!(service.metric("lenet5_corrections"), 2.0);

    assert_eq!(service.take_back(name).json(), json!({"label": 1, "name": name, "count": 1}));
    let other = other["name"].as_str().unwrap();
    assert_eq!(kept(&folder), [format!("0/{other}.png")]);
    let missing = format!("there is no correction {name}");
    service.take_back(name).fails_with(404, "no_such_correction", &missing);
    assert_eq!(service.metric("lenet5_corrections"), 1.0);
}

#[test]
fn corrections_of_a_wrong_form() {
    let folder = temp();
    let service = keeping(folder.path(), &[]);
    let Sample { png: digit, .. } = &samples()[0];
    let query = |query: &str, message: &str| {
        let path = format!("/v1/corrections{query}");
        service.send(&post(&path, digit)).fails_with(400, "bad_query", message);
    };
    query("", "label: expected 0 to 9, found none");
    query("?label=10", "label: expected 0 to 9, found 10");
    query("?label=-1", "label: expected the number of a class from 0, found -1");
    query("?label=../7", "label: expected the number of a class from 0, found ../7");
    query("?label=7&label=8", "label: expected one value, found more");
    query("?name=0", "expected label in the query, found name");
    for name in ["", "0123456789abcde", "0123456789ABCDEF", "..%2F..%2F..%2F..%2F7"] {
        let found = name.replace("%2F", "/");
        let message = format!("name: expected 16 hexadecimal digits, found {found}");
        service.take_back(name).fails_with(400, "bad_query", &message);
    }
    service.send(&request("DELETE", "/v1/corrections", &[], b"")).fails_with(
        400,
        "bad_query",
        "name: expected the name of a correction, found none",
    );
    let wrong = |picture: &[u8], found: &str| {
        let message = format!("expected a PNG of 28x28 pixels, found {found}");
        service.correct("7", picture).fails_with(422, "not_a_digit", &message);
    };
    wrong(&black(28, 27), "28x27");
    wrong(&black(29, 28), "29x28");
    wrong(&black(2000, 2000)[..16 << 10], "2000x2000");
    wrong(&encoded(&grey(&digits(1).0[0]), ImageFormat::Bmp), "another file");
    wrong(b"no picture", "another file");
    wrong(&png(&image::RgbaImage::new(28, 28).into()), "transparent pixels");
    let broken = service.correct("7", &digit[..digit.len() / 2]);
    assert_eq!((broken.status, &broken.json()["error"]["code"]), (422, &json!("not_a_digit")));
    service.correct("7", b"").fails_with(
        400,
        "no_picture",
        "expected a picture's file, found 0 bytes",
    );
    // Bytes after the end of a PNG are not read, and not kept.
    let padded = |size: usize| [&digit[..], &vec![0; size - digit.len()]].concat();
    service.correct("9", &padded((16 << 10) + 1)).fails_with(
        413,
        "body_too_large",
        "expected a body of at most 16384 bytes, found 16385",
    );
    assert!(kept(folder.path()).is_empty());
    assert_eq!(service.correct("9", &padded(16 << 10)).status, 200);
    let files = kept(folder.path());
    assert!(fs::metadata(folder.path().join(&files[0])).unwrap().len() < 1000);

    let allowed = service.get("/v1/corrections");
    assert_eq!((allowed.status, allowed.header("allow")), (405, Some("post, delete, options")));
}

#[test]
fn a_full_folder_of_corrections() {
    let folder = temp();
    // A picture that is there at the start counts, whatever its name.
    fs::create_dir(folder.path().join("3")).unwrap();
    fs::write(folder.path().join("3/by hand.png"), &samples()[0].png).unwrap();
    let service = keeping(folder.path(), &["--keep-limit=3"]);
    assert_eq!(service.metric("lenet5_corrections"), 1.0);
    for (sample, count) in samples()[1..3].iter().zip(2..) {
        assert_eq!(service.correct("5", &sample.png).json()["count"], count);
    }
    let message = "expected at most 3 corrections in the folder, found as many already; \
                   --keep-limit allows more";
    service.correct("5", &samples()[3].png).fails_with(507, "full", message);
    // A correction that is there already can still change.
    assert_eq!(service.correct("6", &samples()[1].png).json()["count"], 3);
    // Room that is made by hand is found.
    fs::remove_file(folder.path().join("3/by hand.png")).unwrap();
    assert_eq!(service.correct("5", &samples()[3].png).json()["count"], 3);
    let service = keeping(folder.path(), &["--keep-limit=3"]);
    service.correct("5", &samples()[4].png).fails_with(507, "full", message);
}

#[test]
fn corrections_that_cannot_be_kept() {
    let Sample { png, label } = &samples()[0];
    let service = Service::start(&[]);
    for response in [service.correct("7", png), service.take_back("0123456789abcdef")] {
        response.fails_with(
            404,
            "not_kept_here",
            "this service keeps no corrections; its option --keep DIR turns that on",
        );
    }
    let page = String::from_utf8(service.get("/").body).unwrap();
    assert!(!page.contains("data-keep"));

    let folder = temp();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    Ended::from(program("serve").arg(format!("--keep={}", file.display())).output().unwrap())
        .fails_with(&format!(
            "{}: expected a folder or nothing, found a file; name another place for the results",
            file.display()
        ));
    let ended = Ended::from(program("serve").arg("--keep-limit=3").output().unwrap());
    assert_eq!(ended.code, Some(2), "{ended:?}");

    // A file in the place of a label's folder stands for a folder that cannot be written to, which root always can.
    let service = keeping(folder.path(), &[]);
    let page = String::from_utf8(service.get("/").body).unwrap();
    assert!(page.contains("<html data-service=\"v1/\" data-keep "));
    fs::write(folder.path().join("7"), "").unwrap();
    service.correct("7", png).fails_with(
        500,
        "not_kept",
        "the folder of corrections cannot be changed; the log of the service says why",
    );
    assert_eq!(service.correct("8", png).json()["count"], 1);
    service.predict(png).reads(*label);
}

#[test]
fn corrections_of_foreign_pages_are_refused() {
    let folder = temp();
    let Sample { png, .. } = &samples()[0];
    // A service for other machines checks who changes files, too.
    let options: [&[&str]; 2] = [&["--addr=127.0.0.1:0"], &["--addr=0.0.0.0:0"]];
    for (options, listed) in
        options.into_iter().flat_map(|options| [(options, false), (options, true)])
    {
        let mut options = options.to_vec();
        if listed {
            options.push("--allow-origin=https://a.test");
        }
        let service = keeping(folder.path(), &options);
        for (origin, allowed) in [
            ("http://localhost", true),
            ("https://a.test", listed),
            ("https://b.test", false),
            ("null", false),
        ] {
            let headers = [("origin", origin)];
            let stored = service.send(&request("POST", "/v1/corrections?label=7", &headers, png));
            let status = if allowed { 200 } else { 403 };
            assert_eq!(stored.status, status, "{origin} {options:?}");
            let name = match allowed {
                true => stored.json()["name"].as_str().unwrap().to_owned(),
                false => "0123456789abcdef".to_owned(),
            };
            let path = format!("/v1/corrections?name={name}");
            let taken = service.send(&request("DELETE", &path, &headers, b""));
            assert_eq!(taken.status, status, "{origin} {options:?}");
            if !allowed {
                assert_eq!(taken.json()["error"]["code"], "forbidden_origin");
            }
        }
    }
    assert!(kept(folder.path()).is_empty());
}

/// Weights whose network takes each digit for the next one: the values of the last layer are shifted by one class.
fn shifted() -> Weights {
    let mut weights = Weights::for_reading(Network::Modern).unwrap();
    for (name, array) in &mut weights.tensors {
        if name.starts_with("output.") {
            let mut values = array.to_f32();
            values.rotate_right(array.len() / 10);
            *array = Array::from_f32(array.shape(), &values);
        }
    }
    weights
}

/// SIGHUP while clients send requests: each gets a reading of the old or of the new weights.
#[test]
fn a_hangup_reads_the_weights_again() {
    const CLIENTS: usize = 4;
    const RELOADS: u64 = 12;
    let folder = temp();
    let file = folder.path().join("own.safetensors");
    let versions =
        [Weights::for_reading(Network::Modern).unwrap(), shifted()].map(|w| w.to_safetensors());
    write_atomic(&file, &versions[0]).unwrap();
    // Under nohup, SIGHUP is ignored at the start. Many pictures wait for a batch when the weights are replaced.
    let mut command = program("serve");
    handling([libc::SIGHUP], libc::SIG_IGN, &mut command);
    let mut service =
        Service::by(command, &[file.to_str().unwrap(), "--batch-wait=2000"], Stdio::inherit());
    let Sample { png, label } = &samples()[0];
    let expected = [label.to_string(), ((label + 1) % 10).to_string()];
    let tag =
        |service: &Service| service.get("/weights.safetensors").header("etag").unwrap().to_owned();
    let first = tag(&service);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (service, expected, done) = (&service, &expected, &done);
                scope.spawn(move || {
                    let mut connection = service.connect();
                    let mut seen = [0, 0];
                    while !done.load(Ordering::Relaxed) {
                        connection.send(&post("/v1/predict", png));
                        let response = connection.response();
                        assert_eq!(response.status, 200);
                        let text = response.json()["text"].as_str().unwrap().to_owned();
                        let version = expected.iter().position(|text_of| *text_of == text);
                        seen[version.expect("a reading of one of the weights")] += 1;
                    }
                    seen
                })
            })
            .collect();
        for reload in 1..=RELOADS {
            let version = (reload % 2) as usize;
            write_atomic(&file, &versions[version]).unwrap();
            service.signal(libc::SIGHUP);
            service.wait_until_it_reads(&expected[version]);
            assert_eq!(tag(&service) == first, version == 0);
            let sent = service.get("/weights.safetensors");
            assert!(sent.body == versions[version]);
        }
        done.store(true, Ordering::Relaxed);
        for client in clients {
            let seen = client.join().unwrap();
            assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
        }
    });
    service.signal(libc::SIGTERM);
    assert_eq!(service.code(), Some(0));
}

#[test]
fn a_hangup_with_a_broken_file_keeps_the_old_weights() {
    let folder = temp();
    let file = folder.path().join("own.safetensors");
    let good = shifted().to_safetensors();
    fs::write(&file, &good).unwrap();
    let mut service = Service::logging(&[file.to_str().unwrap()], Stdio::piped());
    let mut log = BufReader::new(service.child.stderr.take().unwrap());
    let text = ((samples()[0].label + 1) % 10).to_string();
    let original = Weights::shipped(Network::Original).unwrap();
    let cases = [
        (Some(good[..good.len() / 2].to_vec()), "expected"),
        (Some(b"no weights".to_vec()), "expected"),
        (
            Some(original.to_safetensors()),
            "expected the modern network with 10 classes, found the original network with 10",
        ),
        (None, "No such file or directory"),
    ];
    for (content, reason) in cases {
        match content {
            Some(content) => write_atomic(&file, &content).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        service.signal(libc::SIGHUP);
        let mut line = String::new();
        while !line.contains("reads on with the old weights") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the log ends");
        }
        assert!(line.contains(file.to_str().unwrap()) && line.contains(reason), "{line}");
        assert_eq!(service.predict(&samples()[0].png).json()["text"], text);
        assert!(service.get("/weights.safetensors").body == good);
    }
    service.signal(libc::SIGINT);
    assert_eq!(service.code(), Some(0));
}

#[test]
fn a_hangup_without_a_file_stops() {
    let mut service = Service::start(&[]);
    service.signal(libc::SIGHUP);
    assert_eq!(service.code(), Some(0));
}
