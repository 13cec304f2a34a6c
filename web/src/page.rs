//! The files of the page.

/// A file of the page.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PageFile {
    /// The path in the URL, without a slash at its start; empty for the page itself.
    pub path: &'static str,
    /// The media type, for the header `Content-Type`.
    pub media_type: &'static str,
    /// The content.
    pub bytes: &'static [u8],
}

macro_rules! page_file {
    ($path:literal, $file:literal, $media_type:literal) => {
        PageFile {
            path: $path,
            media_type: $media_type,
            bytes: include_bytes!(concat!("../page/", $file)),
        }
    };
}

/// All files of the page, the page itself first. None of them names a server: they work on any one that sends them.
pub const PAGE: [PageFile; 12] = [
    page_file!("", "index.html", "text/html; charset=utf-8"),
    page_file!("style.css", "style.css", "text/css; charset=utf-8"),
    page_file!("app.js", "app.js", "text/javascript; charset=utf-8"),
    page_file!("readers.js", "readers.js", "text/javascript; charset=utf-8"),
    page_file!("pictures.js", "pictures.js", "text/javascript; charset=utf-8"),
    page_file!("corrections.js", "corrections.js", "text/javascript; charset=utf-8"),
    page_file!("zip.js", "zip.js", "text/javascript; charset=utf-8"),
    page_file!("worker.js", "worker.js", "text/javascript; charset=utf-8"),
    page_file!("offline.js", "offline.js", "text/javascript; charset=utf-8"),
    page_file!("lenet5/index.js", "lenet5/index.js", "text/javascript; charset=utf-8"),
    page_file!("lenet5/lenet5.js", "lenet5/lenet5.js", "text/javascript; charset=utf-8"),
    page_file!("lenet5/lenet5.wasm.gz", "lenet5/lenet5.wasm.gz", "application/gzip"),
];
