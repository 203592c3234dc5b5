//! Lets the program find libtorch where it was built against it, without `LD_LIBRARY_PATH`.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let unix = std::env::var_os("CARGO_CFG_UNIX").is_some();
    let torch = std::env::var_os("CARGO_FEATURE_TORCH").is_some();
    let Some(libtorch) = std::env::var_os("LIBTORCH").filter(|_| unix && torch) else {
        return;
    };
    let lib = std::path::absolute(Path::new(&libtorch).join("lib")).expect("LIBTORCH is not empty");
    // First a `lib` folder beside the program's own, as in a container; then the place of this build.
    link_arg("-Wl,-rpath,$ORIGIN/../lib");
    link_arg(&format!("-Wl,-rpath,{}", lib.display()));
    // The folder, not a file that may not be there: what is missing would be built again and again.
    println!("cargo:rerun-if-changed={}", lib.display());
    let cuda: PathBuf = lib.join("libtorch_cuda.so");
    if cuda.exists() {
        // The CUDA kernels register themselves when loaded; no symbol of theirs is named here, so the linker would leave them out.
        link_arg(&format!("-L{}", lib.display()));
        for arg in ["-Wl,--no-as-needed", "-ltorch_cuda", "-Wl,--as-needed"] {
            link_arg(arg);
        }
    }
}

fn link_arg(arg: &str) {
    println!("cargo:rustc-link-arg={arg}");
}
