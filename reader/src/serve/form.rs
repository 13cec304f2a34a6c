//! Finds the picture's file in a body: the body itself, a field of a form, or base64 in JSON.

use std::borrow::Cow;
use std::convert::Infallible;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use futures_util::FutureExt;
use futures_util::stream;
use lenet5_core::Picture;
use serde::Deserialize;

use super::failure::Failure;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The form in which a body holds the picture.
#[derive(Clone, Debug)]
pub enum BodyForm {
    /// The body is the file.
    File,
    /// The file is a field of multipart/form-data, which has this boundary.
    Multipart(String),
    /// The body is `{"image": "<base64>"}`.
    Json,
}

#[derive(Deserialize)]
struct Json<'a> {
    #[serde(borrow)]
    image: Cow<'a, str>,
}

impl BodyForm {
    /// Finds out how a body holds the picture. If the content type is unknown, the body may still start with the bytes of
    /// a picture.
    pub fn of(headers: &HeaderMap, body: &Bytes) -> Result<Self, Failure> {
        let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
        if let Some(name) =
            encodings.find(|name| !name.as_bytes().eq_ignore_ascii_case(b"identity"))
        {
            let name = String::from_utf8_lossy(name.as_bytes());
            return Err(unsupported(format!(
                "expected a body without content encoding, found {name}"
            )));
        }
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Self::File) };
        let value = String::from_utf8_lossy(value.as_bytes());
        let name = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match name.as_str() {
            "application/octet-stream" => Ok(Self::File),
            "application/json" => Ok(Self::Json),
            "multipart/form-data" => match multer::parse_boundary(&value) {
                Ok(boundary) => Ok(Self::Multipart(boundary)),
                Err(_) => Err(bad_multipart("a boundary in the content type", "none")),
            },
            name if name.starts_with("image/") => Ok(Self::File),
            // With --data-binary, curl states the content type of a form.
            _ if Picture::is_known(body) => Ok(Self::File),
            _ => Err(unsupported(format!(
                "expected a picture, or the content type image/*, application/octet-stream, \
                 multipart/form-data or application/json, found {value}; with curl: -F image=@7.png"
            ))),
        }
    }

    /// The bytes of the picture's file.
    pub fn file(&self, body: &Bytes) -> Result<Bytes, Failure> {
        let file = match self {
            Self::File => body.clone(),
            Self::Multipart(boundary) => field(boundary, body)?,
            Self::Json => base64(body)?,
        };
        if file.is_empty() {
            return Err(Failure::bad("no_picture", "expected a picture's file, found 0 bytes"));
        }
        Ok(file)
    }
}

fn unsupported(message: String) -> Failure {
    Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
}

/// The only field with a file name.
fn field(boundary: &str, body: &Bytes) -> Result<Bytes, Failure> {
    let body = stream::iter([Ok::<_, Infallible>(body.clone())]);
    let mut form = multer::Multipart::new(body, boundary);
    let find = async {
        let mut files = Vec::new();
        while let Some(field) = form.next_field().await? {
            // Browsers send an empty file name if no file was chosen.
            if field.file_name().is_some_and(|name| !name.is_empty()) {
                files.push(field.bytes().await?);
            }
        }
        Ok::<_, multer::Error>(files)
    };
    match find.now_or_never().expect("the whole body is in memory") {
        Ok(files) if files.len() > 1 => {
            let message = format!("expected one field with a file, found {}", files.len());
            Err(Failure::bad("several_pictures", message))
        }
        Ok(mut files) => files
            .pop()
            .ok_or_else(|| Failure::bad("no_picture", "expected a field with a file, found none")),
        Err(error) => Err(bad_multipart("fields with this boundary", &error.to_string())),
    }
}

fn bad_multipart(expected: &str, found: &str) -> Failure {
    Failure::bad(
        "bad_multipart",
        format!("multipart/form-data: expected {expected}, found {found}"),
    )
}

fn base64(body: &Bytes) -> Result<Bytes, Failure> {
    let json: Json = serde_json::from_slice(body).map_err(|error| {
        Failure::bad("bad_json", format!("expected {{\"image\": \"<base64>\"}}, found {error}"))
    })?;
    let text = match json.image.strip_prefix("data:") {
        None => &json.image,
        Some(url) => match url.split_once(',') {
            Some((kind, text)) if kind.ends_with(";base64") => text,
            _ => return Err(bad_base64("a data: URL without ;base64,")),
        },
    };
    // Line breaks and the alphabet of URLs are allowed too.
    let text: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            byte => byte,
        })
        .collect();
    BASE64.decode(text).map(Bytes::from).map_err(|error| bad_base64(&error.to_string()))
}

fn bad_base64(found: &str) -> Failure {
    Failure::bad(
        "bad_base64",
        format!("image: expected base64, or a data: URL of it, found {found}"),
    )
}
