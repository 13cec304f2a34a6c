//! LeNet-5 in the browser.
//!
//! Compiled for WebAssembly, this is the module that reads digits, with JavaScript's types: see `page/lenet5/lenet5.d.ts`.
//! `make web` builds it. For other targets this holds the built files, as [`PAGE`]: a page to draw on, which any HTTP
//! server can send.

#[cfg(not(target_arch = "wasm32"))]
mod page;
#[cfg(target_arch = "wasm32")]
mod recognizer;

#[cfg(not(target_arch = "wasm32"))]
pub use page::{PAGE, PageFile};
