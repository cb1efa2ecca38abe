//! The Java package in `examples-c/jni`: Maven builds it against the library of this run and runs its tests, under
//! `-Xcheck:jni`; then the jar is used as a host would.

mod support;

use needs::needs;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// Where Maven builds. Built and tested once for all tests here.
static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("jni");
    let said = support::stdout(
        Command::new("mvn")
            .args(["--batch-mode", "--no-transfer-progress", "package"])
            .arg(format!("-Dmfq.build={}", built.display()))
            .arg(format!("-Dmfq.library={}", support::library_dir().join("libmfq.a").display()))
            .current_dir(Path::new(support::ROOT).join("examples-c/jni")),
    );
    // What the tests say of themselves.
    said.lines().filter(|line| line.starts_with("  ")).for_each(|line| println!("{line}"));
    // -Xcheck:jni speaks on the JVM's standard output.
    let is_warning =
        |line: &str| ["WARNING in native", "WARNING: JNI", "FATAL ERROR"].iter().any(|is| line.contains(is));
    let warnings: Vec<_> = said.lines().filter(|line| is_warning(line)).collect();
    assert!(warnings.is_empty(), "{warnings:#?}");
    built
});

#[needs("mvn", "javac", "cc")]
#[test]
fn the_java_package_passes_its_tests_without_a_warning_of_check_jni() {
    let _ = &*BUILT;
}

#[needs("mvn", "javac", "cc")]
#[test]
fn the_jar_runs_by_itself_and_the_quick_start_as_printed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let source = dir.path().join("Orders.java");
    std::fs::write(&source, support::printed("Java", "java")).expect("a source file");
    let said = support::stdout(
        Command::new("java")
            .args([OsStr::new("-Xcheck:jni"), OsStr::new("-cp")])
            .arg(BUILT.join("mfq-0.1.0.jar"))
            .arg(source)
            .current_dir(dir.path()),
    );
    assert_eq!(said, "42 apples\n");
}

#[test]
fn where_no_library_is_named_the_one_that_is_installed_is_built_and_goes_into_the_jar() {
    // As Maven calls it.
    let would_do = support::stdout(
        Command::new("make")
            .args(["--dry-run", "OUT=libmfqjni.so", "HEADERS=.", "LIBRARY=", "JAVA_HOME=."])
            .current_dir(Path::new(support::ROOT).join("examples-c/jni")),
    );
    let linked = would_do.lines().skip_while(|line| !line.contains(" -C ../..")).collect::<String>();
    assert!(linked.contains("-o libmfqjni.so") && linked.contains("/install/release/libmfq.a"), "{would_do}");
}
