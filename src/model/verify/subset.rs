//! Which objects a verification of the data reads, when not all.
//!
//! A share `n/t` is decided by the hash of an object's key: the t shares have no object in common, together they are
//! all objects, and an object stays in its share whatever else comes and goes. A rotation over n proves everything in t
//! runs. A percentage, or a size, takes each object with that probability, anew in every run.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Subset {
    /// Share `n` of `t`, from 1.
    Share {
        /// Which.
        n: u32,
        /// Of how many.
        t: u32,
    },
    /// So many percent of the objects, by chance; above 0, at most 100.
    Percent(f64),
    /// About so many bytes, by chance.
    Bytes(u64),
}

/// A subset that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a subset: give a share such as 1/7, a percentage such as 10%, or a size such as 1GiB")]
pub struct NotASubset(String);

impl FromStr for Subset {
    type Err = NotASubset;

    fn from_str(text: &str) -> Result<Self, NotASubset> {
        let wrong = || NotASubset(text.to_owned());
        if let Some((n, t)) = text.split_once('/') {
            let (n, t): (u32, u32) = (n.parse().map_err(|_| wrong())?, t.parse().map_err(|_| wrong())?);
            return if (1..=t).contains(&n) { Ok(Self::Share { n, t }) } else { Err(wrong()) };
        }
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(|_| wrong())?;
            let is_one = percent > 0.0 && percent <= 100.0; // false for NaN
            return if is_one { Ok(Self::Percent(percent)) } else { Err(wrong()) };
        }
        // A bare number lacks its unit, here as everywhere.
        let has_unit = text.bytes().last().is_some_and(|last| last.is_ascii_alphabetic());
        match text.parse::<bytesize::ByteSize>() {
            Ok(size) if has_unit && size.0 > 0 => Ok(Self::Bytes(size.0)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share { n, t } => write!(f, "{n}/{t}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
        }
    }
}

/// Decides for each object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Picker {
    /// All of them.
    All,
    /// A fixed share.
    Share {
        /// Which, from 1.
        n: u32,
        /// Of how many.
        t: u32,
    },
    /// By chance.
    Chance {
        /// With this probability.
        share: f64,
        /// Another one for each run.
        seed: u64,
    },
}

impl Picker {
    /// The picker of a subset; `total` is the bytes of all objects, for a size. `seed` must be new for each run.
    pub fn new(subset: Option<Subset>, total: u64, seed: u64) -> Self {
        match subset {
            None => Self::All,
            Some(Subset::Share { n, t }) => Self::Share { n, t },
            Some(Subset::Percent(percent)) => Self::Chance { share: percent / 100.0, seed },
            Some(Subset::Bytes(bytes)) if bytes >= total => Self::All,
            Some(Subset::Bytes(bytes)) => Self::Chance { share: bytes as f64 / total as f64, seed },
        }
    }

    /// Whether the object with this key is read.
    pub fn takes(&self, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::Share { n, t } => hash(0, key) % u64::from(*t) == u64::from(*n - 1),
            Self::Chance { share, seed } => hash(*seed, key) as f64 <= share * u64::MAX as f64,
        }
    }
}

/// Even, and the same on every machine and with every version.
fn hash(seed: u64, key: &str) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update(seed.to_be_bytes());
    hasher.update(key.as_bytes());
    let digest = hasher.finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("1/7", Subset::Share { n: 1, t: 7 })]
    #[case("7/7", Subset::Share { n: 7, t: 7 })]
    #[case("10%", Subset::Percent(10.0))]
    #[case("0.5%", Subset::Percent(0.5))]
    #[case("1GiB", Subset::Bytes(1 << 30))]
    #[case("64MB", Subset::Bytes(64_000_000))]
    fn subsets(#[case] text: &str, #[case] subset: Subset) {
        assert_eq!(text.parse(), Ok(subset));
    }

    #[rstest]
    #[case("")]
    #[case("0/7")]
    #[case("8/7")]
    #[case("1/0")]
    #[case("1/x")]
    #[case("0%")]
    #[case("101%")]
    #[case("NaN%")]
    #[case("-1%")]
    #[case("1024")]
    #[case("0MiB")]
    #[case("many")]
    fn not_a_subset(#[case] text: &str) {
        let error = text.parse::<Subset>().unwrap_err().to_string();
        assert!(error.contains(text) && error.contains("1/7"), "{error}");
    }

    #[test]
    fn a_size_is_a_share_of_all_there_is() {
        assert_eq!(Picker::new(Some(Subset::Bytes(10)), 10, 1), Picker::All);
        let Picker::Chance { share, .. } = Picker::new(Some(Subset::Bytes(10)), 40, 1) else { panic!("by chance") };
        assert!((share - 0.25).abs() < 1e-9);
    }

    #[test]
    fn chance_is_about_right_and_another_each_time() {
        let keys: Vec<String> = (0..10_000).map(|i| format!("t/0/t-0-{i:020}.avro")).collect();
        let taken = |seed| keys.iter().filter(|key| Picker::Chance { share: 0.1, seed }.takes(key)).collect::<Vec<_>>();
        assert!((800..1200).contains(&taken(1).len()), "{}", taken(1).len());
        assert_ne!(taken(1), taken(2));
    }

    proptest! {
        #[test]
        fn each_object_is_in_exactly_one_share(key in ".{0,60}", t in 1..50_u32) {
            let shares = (1..=t).filter(|n| Picker::Share { n: *n, t }.takes(&key)).count();
            prop_assert_eq!(shares, 1);
        }

        #[test]
        fn everything_is_everything(key in ".{0,60}", seed: u64) {
            let all = Picker::Chance { share: 1.0, seed };
            prop_assert!(all.takes(&key));
        }

        #[test]
        fn what_is_written_is_what_was_read(n in 1..9_u32) {
            let subset = Subset::Share { n, t: 9 };
            prop_assert_eq!(subset.to_string().parse(), Ok(subset));
        }
    }
}
