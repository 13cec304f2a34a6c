//! Nothing at run time: the work is in `build.rs`, which checks `LIBTORCH` before `torch-sys`
//! spends minutes on compiling against it.
