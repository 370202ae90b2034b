//! The post-receive script that `repos add` installs in a local repository.
//!
//! It only calls this program's own `hook post-receive`, which writes the push to the spool: a push is recorded whether or
//! not the engine runs, and is never refused or delayed by it. What the spool holds is read by `triggers`.

use std::path::Path;

/// The script. The program's path is written out because Git runs hooks with a bare environment; should the program be
/// gone, the push still succeeds, and says what was missed.
pub fn hook_script(binary: &Path, data: &Path, repo: &str) -> String {
    let binary = quoted(&binary.to_string_lossy());
    let data = quoted(&data.to_string_lossy());
    let repo = quoted(repo);
    format!(
        "#!/bin/sh\n\
         # Installed by `kickwheel repos add`; `kickwheel repos rm` removes it.\n\
         if [ ! -x {binary} ]; then\n\
         \techo \"kickwheel: this push was NOT recorded: \"{binary}\" is missing; run kickwheel repos add again\" >&2\n\
         \tcat >/dev/null\n\
         \texit 0\n\
         fi\n\
         exec {binary} hook post-receive --repo {repo} --data {data}\n"
    )
}

/// As one word of a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_one_word_for_the_shell() {
        let script = hook_script(Path::new("/opt/a b/kick'wheel"), Path::new("/d;rm -rf $HOME"), "churn");
        assert!(script.starts_with("#!/bin/sh\n"));
        assert!(
            script.contains(r"exec '/opt/a b/kick'\''wheel' hook post-receive --repo 'churn' --data '/d;rm -rf $HOME'")
        );
    }
}
