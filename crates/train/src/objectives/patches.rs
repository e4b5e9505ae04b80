//! Points in a picture as shares of patches.

/// The four patches nearest to a point, by index, and their shares, which sum to 1; a share of 0 counts for nothing.
pub(crate) type Shares = [(usize, f32); 4];

/// Shares of the patches around `point`, fractions of the width and height of a picture of `grid` x `grid` patches:
/// bilinear interpolation of the patches' centres. The picture's patches begin at index `first`.
pub(crate) fn shares(point: [f32; 2], grid: usize, first: usize) -> Shares {
    let [(x, right), (y, below)] = point.map(|fraction| {
        let at = (fraction * grid as f32 - 0.5).clamp(0.0, (grid - 1) as f32);
        (at as usize, at.fract())
    });
    let patch = |x: usize, y: usize| first + y.min(grid - 1) * grid + x.min(grid - 1);
    [
        (patch(x, y), (1.0 - right) * (1.0 - below)),
        (patch(x + 1, y), right * (1.0 - below)),
        (patch(x, y + 1), (1.0 - right) * below),
        (patch(x + 1, y + 1), right * below),
    ]
}
