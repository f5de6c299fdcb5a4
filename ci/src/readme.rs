//! The README's test command: what it tells a reader to run is what CI runs.
//!
//! Never runs anything. Start at `test_command`.

/// The words of the first line in a fenced block of the README that begins with `cargo test`.
///
/// Errors: a sentence, if there is no such line, or if only a shell could run it.
pub(crate) fn test_command(readme: &str) -> Result<Vec<String>, String> {
    let mut in_fence = false;
    for line in readme.lines().map(str::trim) {
        if line.starts_with("```") || line.starts_with("~~~") {
            in_fence = !in_fence;
        } else if in_fence && (line == "cargo test" || line.starts_with("cargo test ")) {
            return words(line);
        }
    }
    Err("README.md has no line that begins with `cargo test` in a fenced block; say there how to run the tests".into())
}

fn words(line: &str) -> Result<Vec<String>, String> {
    let command = line.split(" #").next().unwrap_or(line);
    if let Some(character) = command.chars().find(|character| "'\"`$|&;<>(){}*?\\~".contains(*character)) {
        return Err(format!(
            "README.md: `{command}` needs a shell for `{character}`; name plain arguments only"
        ));
    }
    Ok(command.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_test_line_in_a_fence_is_the_command() {
        let readme = "Run `cargo test` first.\ncargo test --prose\n```sh\ncargo build\n  cargo test --workspace   # all of it\n\
                      cargo test -p x\n```\n";
        assert_eq!(test_command(readme).unwrap(), ["cargo", "test", "--workspace"]);
    }

    #[test]
    fn a_readme_without_a_test_line_is_an_error() {
        assert!(test_command("cargo test\n```\ncargo testify\n```\ncargo test --after\n").is_err());
    }

    #[test]
    fn a_line_that_needs_a_shell_is_an_error() {
        let error = test_command("```\ncargo test --workspace && echo ok\n```\n").unwrap_err();
        assert!(error.contains("needs a shell"), "{error}");
    }
}
