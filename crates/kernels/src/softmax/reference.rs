//! Softmax as its formula says, in any float type.

use num_traits::Float;

/// Softmax of one row, in place.
pub fn apply<T: Float>(row: &mut [T]) {
    let max = row.iter().fold(T::neg_infinity(), |max, &x| max.max(x));
    let mut sum = T::zero();
    for x in row.iter_mut() {
        *x = (*x - max).exp();
        sum = sum + *x;
    }
    for x in row {
        *x = *x / sum;
    }
}

/// Gradient of one row from the output `y`.
pub fn backward<T: Float>((y, dy): (&[T], &[T]), dx: &mut [T]) {
    let dot = y.iter().zip(dy).fold(T::zero(), |sum, (&y, &dy)| sum + y * dy);
    for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) {
        *dx = y * (dy - dot);
    }
}
