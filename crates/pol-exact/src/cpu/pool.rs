//! Pooling and the parameter-free shortcut (NUMERICS.md, "Pooling").

use rayon::prelude::*;

use crate::shape::PoolShape;

/// The mean of each window: its values in order from +0, divided by their number.
pub fn average(x: &[f32], shape: &PoolShape) -> Vec<f32> {
    let count = (shape.window[0] * shape.window[1]) as f32;
    per_output(x, shape, |window| {
        window.fold(0.0, |sum, (_, value)| sum + value) / count
    })
}

/// The gradient of [`average`]: for each input the windows it is in, in order.
pub fn average_backward(dy: &[f32], shape: &PoolShape) -> Vec<f32> {
    let count = (shape.window[0] * shape.window[1]) as f32;
    per_input(dy, shape, |dy, _, windows| {
        windows.fold(0.0, |sum, output| sum + dy[output] / count)
    })
}

/// The greatest value of each window, the first of equal ones.
pub fn max(x: &[f32], shape: &PoolShape) -> Vec<f32> {
    per_output(x, shape, |window| greatest(window).1)
}

/// The gradient of [`max`]: all of a window's goes to its greatest value, the first of equal ones.
pub fn max_backward(x: &[f32], dy: &[f32], shape: &PoolShape) -> Vec<f32> {
    let image = shape.input[0] * shape.input[1] * shape.channels;
    per_input(dy, shape, |dy, (n, input), windows| {
        let x = &x[n * image..(n + 1) * image];
        windows
            .filter(|&output| greatest(shape.window_of(x, output)).0 == input)
            .fold(0.0, |sum, output| sum + dy[output])
    })
}

/// The first of the greatest values, with its place.
fn greatest(mut window: impl Iterator<Item = (usize, f32)>) -> (usize, f32) {
    let first = window.next().unwrap_or((0, 0.0));
    window.fold(
        first,
        |best, next| if next.1 > best.1 { next } else { best },
    )
}

fn per_output(
    x: &[f32],
    shape: &PoolShape,
    value: impl Fn(&mut dyn Iterator<Item = (usize, f32)>) -> f32 + Sync,
) -> Vec<f32> {
    let [rows, columns] = shape.output();
    let (image, out) = (
        shape.input[0] * shape.input[1] * shape.channels,
        rows * columns * shape.channels,
    );
    let mut y = vec![0.0; shape.batch * out];
    (y.par_chunks_mut(out.max(1)))
        .zip(x.par_chunks(image.max(1)))
        .for_each(|(y, x)| {
            for (output, y) in y.iter_mut().enumerate() {
                *y = value(&mut shape.window_of(x, output));
            }
        });
    y
}

fn per_input(
    dy: &[f32],
    shape: &PoolShape,
    value: impl Fn(&[f32], (usize, usize), &mut dyn Iterator<Item = usize>) -> f32 + Sync,
) -> Vec<f32> {
    let [rows, columns] = shape.output();
    let (image, out) = (
        shape.input[0] * shape.input[1] * shape.channels,
        rows * columns * shape.channels,
    );
    let mut dx = vec![0.0; shape.batch * image];
    (dx.par_chunks_mut(image.max(1)).enumerate())
        .zip(dy.par_chunks(out.max(1)))
        .for_each(|((n, dx), dy)| {
            for (input, dx) in dx.iter_mut().enumerate() {
                *dx = value(dy, (n, input), &mut shape.windows_with(input));
            }
        });
    dx
}

/// Every `stride`-th row and column from the first, with zeros for new channels: `before` of them
/// ahead and the rest behind (He et al., 2016, §3.3, option A).
pub fn shortcut(x: &[f32], shape: &ShortcutShape) -> Vec<f32> {
    let [rows, columns] = shape.output();
    let mut y = vec![0.0; shape.batch * rows * columns * shape.channels_out];
    for (output, y) in y.chunks_exact_mut(shape.channels_out.max(1)).enumerate() {
        let from = shape.input_of(output);
        y[shape.before()..][..shape.channels_in]
            .copy_from_slice(&x[from..from + shape.channels_in]);
    }
    y
}

/// The gradient of [`shortcut`]: the same values back in their places, zeros elsewhere.
pub fn shortcut_backward(dy: &[f32], shape: &ShortcutShape) -> Vec<f32> {
    let [rows, columns] = shape.input;
    let mut dx = vec![0.0; shape.batch * rows * columns * shape.channels_in];
    for (output, dy) in dy.chunks_exact(shape.channels_out.max(1)).enumerate() {
        let to = shape.input_of(output);
        dx[to..to + shape.channels_in].copy_from_slice(&dy[shape.before()..][..shape.channels_in]);
    }
    dx
}

pub use crate::shape::ShortcutShape;
