//! What libmfq.so shows to the linker.

mod support;

use std::process::Command;

#[test]
fn exactly_the_functions_of_the_header_are_exported() {
    let nm = support::stdout(
        Command::new("nm").args(["-D", "--defined-only"]).arg(support::library_dir().join("libmfq.so")),
    );
    let mut found: Vec<&str> = nm.lines().filter_map(|line| line.split_whitespace().last()).collect();
    found.sort_unstable();
    assert_eq!(found, support::EXPORTED);
}

#[test]
fn the_library_has_a_soname_and_is_never_unloaded() {
    let dynamic =
        support::stdout(Command::new("readelf").args(["-d", "-W"]).arg(support::library_dir().join("libmfq.so")));
    let soname = concat!("Library soname: [libmfq.so.", env!("CARGO_PKG_VERSION_MAJOR"), "]");
    assert!(dynamic.contains(soname), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
}

#[test]
fn the_library_runs_nothing_when_the_process_ends() {
    let symbols = support::stdout(
        Command::new("nm").args(["-D", "--undefined-only"]).arg(support::library_dir().join("libmfq.so")),
    );
    assert!(!symbols.lines().any(|line| line.contains(" atexit") || line.contains("on_exit")), "{symbols}");
}
