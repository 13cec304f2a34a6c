//! An empty library: its `build.rs` checks `LIBTORCH` before `torch-sys` spends minutes on
//! compiling against it.
