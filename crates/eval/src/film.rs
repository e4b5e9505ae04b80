//! Film strips: a few images of an episode, evenly spaced, although its length is not known beforehand.

use robomamba_policy::Image;

use crate::EvalError;
use crate::png::encode_png;

/// Images of one strip at most; at least half as many if the episode is long enough.
const STILLS_MAX: usize = 12;

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Still {
    /// Control step that it shows the beginning of.
    pub step: usize,
    /// The image as PNG.
    pub png: Vec<u8>,
}

/// Collects the images of one episode.
///
/// It keeps every `stride`-th image; when there are too many, it drops every other one and doubles the stride.
#[derive(Clone, Debug)]
pub struct Film {
    stride: usize,
    stills: Vec<Still>,
}

impl Default for Film {
    fn default() -> Self {
        Self { stride: 1, stills: Vec::new() }
    }
}

impl Film {
    /// Whether the image of `step` is to be added.
    pub fn wants(&self, step: usize) -> bool {
        step.is_multiple_of(self.stride)
    }

    /// Adds the image of `step`.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn add(&mut self, step: usize, image: &Image) -> Result<(), EvalError> {
        if self.stills.len() == STILLS_MAX {
            self.stride *= 2;
            self.stills.retain(|still| still.step.is_multiple_of(self.stride));
        }
        if self.wants(step) {
            self.stills.push(Still { step, png: encode_png(image)? });
        }
        Ok(())
    }

    /// The strip, with the image after the last step at its end.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn finish(mut self, steps: usize, image: &Image) -> Result<Vec<Still>, EvalError> {
        self.stills.retain(|still| still.step < steps);
        self.stills.push(Still { step: steps, png: encode_png(image)? });
        Ok(self.stills)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_are_evenly_spaced_and_bounded() {
        let image = Image::black(2, 2);
        for steps in [1, 5, 12, 13, 100, 1000] {
            let mut film = Film::default();
            for step in 0..steps {
                if film.wants(step) {
                    film.add(step, &image).unwrap();
                }
            }
            let strip: Vec<usize> = film.finish(steps, &image).unwrap().iter().map(|still| still.step).collect();
            let (last, rest) = strip.split_last().unwrap();
            assert_eq!((*last, rest[0]), (steps, 0));
            assert!(rest.len() <= STILLS_MAX && rest.len() >= steps.min(STILLS_MAX / 2), "{strip:?}");
            assert!(rest.windows(3).all(|w| w[1] - w[0] == w[2] - w[1]), "{strip:?}");
        }
    }
}
