// SPDX-License-Identifier: Apache-2.0
//
// Finds the library with pkg-config, or builds it with meson from vendor/: in the repository that folder points at the
// library's sources, in a published crate it is a copy of them. Nothing is downloaded.
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{exit, Command};

// The declarations are this version's; structs of a newer library only grow.
const OLDEST: &str = env!("CARGO_PKG_VERSION");

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for variable in [
        "NEGCOS_SYS_SOURCE",
        "PKG_CONFIG",
        "PKG_CONFIG_PATH",
        "PKG_CONFIG_LIBDIR",
        "PKG_CONFIG_SYSROOT_DIR",
        "CC",
        "CXX",
        "DOCS_RS",
    ] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    if env::var_os("DOCS_RS").is_some() {
        return; // documentation links nothing
    }
    let source = env::var("NEGCOS_SYS_SOURCE").unwrap_or_default();
    let outcome = match source.as_str() {
        "" => installed().or_else(|not_installed| {
            built().map_err(|not_built| format!("{not_installed}\nand it cannot be built from source: {not_built}"))
        }),
        "0" => installed(),
        "1" => built(),
        other => Err(format!("NEGCOS_SYS_SOURCE is {other:?}, expected 0 (installed only) or 1 (from source)")),
    };
    if let Err(why) = outcome {
        eprintln!("\nnegcos-sys: {why}\n");
        exit(1);
    }
}

fn cross() -> bool {
    env::var_os("HOST") != env::var_os("TARGET")
}

/// The output of a command, or what went wrong in a sentence.
fn output(command: &mut Command) -> Result<Vec<u8>, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program} cannot be run ({error})"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Err(format!("{command:?} failed:\n{}\n{}", text(&output.stdout), text(&output.stderr)).trim_end().to_owned())
}

fn pkg_config() -> Command {
    Command::new(env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into()))
}

/// The library that pkg-config knows.
fn installed() -> Result<(), String> {
    let told = ["PKG_CONFIG", "PKG_CONFIG_LIBDIR", "PKG_CONFIG_SYSROOT_DIR"];
    if cross() && told.iter().all(|variable| env::var_os(variable).is_none()) {
        return Err(format!("cross-compiling, and none of {} says where the target's libraries are", told.join(", ")));
    }
    let package = format!("negcos >= {OLDEST}");
    let flags = output(pkg_config().args(["--print-errors", "--libs", &package])).map_err(|why| {
        format!(
            "no installed negcos {OLDEST} or newer was found (install it with meson install, and where it is not \
             in a system folder set PKG_CONFIG_PATH to its lib/pkgconfig): {why}"
        )
    })?;
    link(&flags, None)
}

/// The library built here, linked statically.
fn built() -> Result<(), String> {
    let source = Path::new(&env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("vendor");
    if !source.join("meson.build").is_file() {
        return Err(format!("{} has no sources", source.display()));
    }
    if cross() {
        return Err("a cross-compiled library has to be built with meson and a cross file, and installed".into());
    }
    for part in ["meson.build", "meson_options.txt", "include", "capi", "src"] {
        println!("cargo:rerun-if-changed={}", source.join(part).display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
    let (build, prefix) = (out.join("build"), out.join("prefix"));
    let needs = "it needs meson 1.0.1, ninja, a C++20 compiler and xsimd 8.1, or newer, and takes oneTBB where it is \
                 found (Debian: apt install meson g++ pkg-config libxsimd-dev libtbb-dev)";

    let mut setup = Command::new("meson");
    setup.args(["setup", "--wrap-mode=nodownload", "--libdir=lib", "--buildtype=release"]);
    setup.args(["-Dtests=false", "-Dcommand=false", "-Dexamples=false"]);
    setup.arg("--prefix").arg(&prefix);
    let _ = fs::remove_dir_all(&build); // of an earlier run, perhaps half done or with another compiler
    output(setup.arg(&build).arg(&source)).map_err(|why| format!("{needs}: {why}"))?;
    let jobs = env::var("NUM_JOBS").unwrap_or_else(|_| "1".into());
    output(Command::new("meson").args(["compile", "-j", &jobs, "-C"]).arg(&build))?;
    output(Command::new("meson").env_remove("DESTDIR").args(["install", "--quiet", "--no-rebuild", "-C"]).arg(&build))?;

    let mut query = pkg_config();
    query.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")).args(["--static", "--libs", "negcos"]);
    link(&output(&mut query)?, Some("negcos"))
}

/// Hands what pkg-config says to cargo.
fn link(flags: &[u8], statically: Option<&str>) -> Result<(), String> {
    for flag in words(flags)? {
        if let Some(folder) = flag.strip_prefix("-L") {
            println!("cargo:rustc-link-search=native={folder}");
        } else if let Some(library) = flag.strip_prefix("-l") {
            let kind = if statically == Some(library) { "static=" } else { "" };
            println!("cargo:rustc-link-lib={kind}{library}");
        }
    }
    Ok(())
}

/// The words of a line in which a backslash quotes the next byte, as pkg-config prints it: of a letter beyond ASCII it
/// quotes each byte. cargo skips what is not UTF-8.
fn words(line: &[u8]) -> Result<Vec<String>, String> {
    let mut words = vec![Vec::new()];
    let mut bytes = line.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => words.last_mut().unwrap().extend(bytes.next()),
            b if b.is_ascii_whitespace() => words.push(Vec::new()),
            b => words.last_mut().unwrap().push(*b),
        }
    }
    let text = |word| {
        String::from_utf8(word).map_err(|error| {
            format!(
                "{:?} is not UTF-8, and cargo can be told of no such folder",
                String::from_utf8_lossy(error.as_bytes())
            )
        })
    };
    words.into_iter().filter(|word| !word.is_empty()).map(text).collect()
}
