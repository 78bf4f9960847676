//! Hides what a compose file's `environment` sections say in whatever a container printed.

/// Values this short hide nothing and would garble every log.
const SHORTEST_SECRET: usize = 6;

/// The texts to hide, longest first.
#[derive(Debug)]
pub(super) struct Mask(Vec<String>);

impl Mask {
    /// Hides these values, each line of those that have several, and the user and password of those that are URLs.
    pub(super) fn new<'a>(values: impl IntoIterator<Item = &'a String>) -> Self {
        let mut hidden: Vec<String> = values
            .into_iter()
            .flat_map(|value| {
                let lines = value.lines().map(str::trim);
                lines.chain(credentials(value)).chain([value.as_str()])
            })
            .filter(|text| text.len() >= SHORTEST_SECRET)
            .map(str::to_owned)
            .collect();
        hidden.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        hidden.dedup();
        Self(hidden)
    }

    /// `text` with `***` for each of them.
    pub(super) fn apply(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, hidden| text.replace(hidden, "***"))
    }
}

/// `user:password`, and the password alone, of a URL.
fn credentials(value: &str) -> impl Iterator<Item = &str> {
    let authority = value.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
    let both = authority.rsplit_once('@').map(|(both, _)| both);
    both.into_iter().flat_map(|both| [both].into_iter().chain(both.split_once(':').map(|(_, password)| password)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(values: &[&str]) -> Mask {
        let values: Vec<String> = values.iter().map(|&value| value.to_owned()).collect();
        Mask::new(&values)
    }

    #[test]
    fn values_are_hidden_wherever_they_stand() {
        let mask = mask(&["hunter2-long", "hunter2", "8080", "true"]);
        assert_eq!(mask.apply("pw=hunter2 and hunter2-long on 8080: true"), "pw=*** and *** on 8080: true");
    }

    #[test]
    fn so_are_the_parts_of_a_url_and_single_lines() {
        let mask = mask(&["postgres://app:s3cr3t/7@db:5432/x", "-----BEGIN KEY-----\n  MIIabcdef\n-----END-----"]);
        assert_eq!(mask.apply("connecting with MIIabcdef"), "connecting with ***");
        let mask = self::mask(&["postgres://app:s3cr3t7@db:5432/x"]);
        assert_eq!(mask.apply("password s3cr3t7 refused at db:5432"), "password *** refused at db:5432");
        assert_eq!(mask.apply("user app:s3cr3t7"), "user ***");
    }
}
