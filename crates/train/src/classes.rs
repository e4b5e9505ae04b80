//! How many kinds and colours the things in the pictures have, as the data sets say it.

use robomamba_data::{Feature, Features};

use robomamba_data::columns::things;

/// Number of classes of each attribute of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Classes {
    /// Kinds: classes are `0..kinds`.
    pub kinds: usize,
    /// Colours: classes are `0..colours`.
    pub colours: usize,
}

impl Classes {
    /// What a data set without a description has at least, so that its head fits those of other such data sets.
    const UNDESCRIBED: Self = Self { kinds: 8, colours: 8 };

    /// The larger count of each attribute.
    pub(crate) fn max(self, other: Self) -> Self {
        Self { kinds: self.kinds.max(other.kinds), colours: self.colours.max(other.colours) }
    }

    /// The classes of one data set.
    ///
    /// Its `info.json` may name them in the entry `info.classes` of `observation.things.*`, a list for each attribute:
    /// `{"kind": ["square", ..], "colour": ["red", ..]}`. Otherwise `largest`, the largest class of each attribute that
    /// occurs, tells how many there are, and no fewer than eight.
    pub(crate) fn of(features: &Features, largest: [f32; 2]) -> Self {
        let labels = features.cameras().filter_map(|(camera, _)| features.get(&things(camera)));
        let described = labels.filter_map(Self::described).reduce(Self::max);
        // A class that is no whole number is refused when the labels are checked.
        let seen = largest.map(|class| class.max(0.0) as usize + 1);
        described.unwrap_or_else(|| Self { kinds: seen[0], colours: seen[1] }.max(Self::UNDESCRIBED))
    }

    fn described(feature: &Feature) -> Option<Self> {
        let classes = feature.info.as_ref()?.get("classes")?;
        let count = |attribute: &str| Some(classes.get(attribute)?.as_array()?.len());
        Some(Self { kinds: count("kind")?, colours: count("colour")? })
    }
}
