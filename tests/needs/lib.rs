//! `#[needs("cmake", "cc")]`, above `#[test]`: where one of the programs is not installed, `cargo test` says `ignored, cmake
//! is not installed`. Under `CI=true` the test runs, and fails for want of it.

use proc_macro::TokenStream;
use std::env;

#[proc_macro_attribute]
pub fn needs(programs: TokenStream, test: TokenStream) -> TokenStream {
    let programs = programs.to_string();
    let path = env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&str| env::split_paths(&path).any(|dir| dir.join(program).is_file());
    let missing = programs.split(',').map(|name| name.trim().trim_matches('"')).find(|name| !is_there(name));
    let ignored = match missing {
        Some(name) if env::var("CI").as_deref() != Ok("true") => format!("#[ignore = \"{name} is not installed\"]"),
        _ => String::new(),
    };
    // The compiler notes what it was asked for, and cargo compiles the test anew when that has changed.
    let asked = "const _: [Option<&str>; 2] = [option_env!(\"PATH\"), option_env!(\"CI\")];";
    let mut tokens: TokenStream = format!("{asked}{ignored}").parse().expect("Rust");
    tokens.extend(test);
    tokens
}
