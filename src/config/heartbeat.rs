//! A sign of life for somebody who misses it when it does not come.

use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;

/// Where it goes, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The file with the URL. It is a secret: whoever has it can pretend that all is well.
    pub url_file: PathBuf,
    /// How often it is asked for.
    pub interval: Duration,
}

impl Heartbeat {
    /// Reads the URL.
    ///
    /// # Errors
    /// What is wrong with the file, without what it holds.
    pub fn url(&self) -> Result<Uri, String> {
        let file = self.url_file.display();
        let text = std::fs::read_to_string(&self.url_file).map_err(|e| format!("cannot read {file}: {e}"))?;
        let url = text.trim().parse::<Uri>().ok();
        let is_http = |url: &Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
        url.filter(is_http).ok_or_else(|| format!("{file} does not hold one http:// or https:// URL"))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::with_a_line_end("https://hc.example/secret\n", true)]
    #[case::plain("http://127.0.0.1:8000/x?y=z", true)]
    #[case::empty("", false)]
    #[case::no_scheme("hc.example/secret", false)]
    #[case::other_scheme("ftp://hc.example/secret", false)]
    #[case::two("https://a/1\nhttps://a/2\n", false)]
    fn urls(#[case] text: &str, #[case] good: bool) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let url = Heartbeat { url_file: file.path().to_owned(), interval: Duration::ZERO }.url();
        assert_eq!(url.is_ok(), good, "{url:?}");
        assert!(!url.err().unwrap_or_default().contains("secret"));
    }
}
