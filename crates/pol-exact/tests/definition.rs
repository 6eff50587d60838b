//! The kernels on the CPU against NUMERICS.md, written out as plain loops: every instruction set,
//! both profiles, odd sizes, one-element edges and tails of vectors.

use std::ops::Range;

use pol_exact::Profile;
use pol_exact::cpu::{conv, elementwise, linear, loss, norm, pool, sums, updates};
use pol_exact::math::{exp, ln};
use pol_exact::optim::{AdamRule, Momentum, SgdRule};
use pol_exact::shape::{ConvShape, PoolShape};
use pol_exact::simd::Isa;

/// Values of all 24 places from −1 to 1, from a linear congruence.
fn values(seed: u32, count: usize) -> Vec<f32> {
    let mut state = u64::from(seed) * 2 + 1;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
        })
        .collect()
}

/// The same, so small that most products of two are zero, of either sign.
fn tiny(seed: u32, count: usize) -> Vec<f32> {
    values(seed, count)
        .iter()
        .map(|v| v * 2f32.powi(-75))
        .collect()
}

/// Zeros of either sign, but for a few.
fn zeros(seed: u32, count: usize) -> Vec<f32> {
    let sparse = |v: &f32| if v.abs() < 0.9 { v * 0.0 } else { *v };
    values(seed, count).iter().map(sparse).collect()
}

fn plus_product(profile: Profile, sum: f32, a: f32, b: f32) -> f32 {
    if profile.fused() {
        a.mul_add(b, sum)
    } else {
        sum + a * b
    }
}

/// Runs `case` with every instruction set and profile.
fn everywhere(case: impl Fn(Profile, &str)) {
    for isa in Isa::present() {
        isa.make_current();
        for profile in Profile::ALL {
            case(profile, &format!("{profile} {isa}"));
        }
    }
}

#[track_caller]
fn same(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let differs = (found.iter().zip(expected)).position(|(a, b)| a.to_bits() != b.to_bits());
    if let Some(at) = differs {
        panic!(
            "{what}: value {at} is {:e}, not {:e}",
            found[at], expected[at]
        );
    }
}

/// The tree over `blocks`, by neighbours.
fn tree(mut blocks: Vec<Vec<f32>>) -> Vec<f32> {
    while blocks.len() > 1 {
        blocks = (blocks.chunks(2))
            .map(|pair| match pair {
                [a, b] => a.iter().zip(b).map(|(a, b)| a + b).collect(),
                _ => pair[0].clone(),
            })
            .collect();
    }
    blocks.pop().unwrap_or_default()
}

/// The ends of sums: `+ (+0)`.
fn ended(sums: Vec<f32>) -> Vec<f32> {
    sums.iter().map(|sum| sum + 0.0).collect()
}

/// The long sum over the pixels of a weight; `sum` is that of some images' pixels in some of their rows.
fn weight_sum(
    batch: usize,
    [rows, columns]: [usize; 2],
    sum: impl Fn(Range<usize>, Range<usize>) -> Vec<f32>,
) -> Vec<f32> {
    let pixels = rows * columns;
    let cut = |count: usize, most: usize| -> Vec<Range<usize>> {
        (0..count.div_ceil(most))
            .map(|i| i * most..count.min((i + 1) * most))
            .collect()
    };
    if pixels < 512 {
        let images = (512 / pixels).min(8);
        let blocks = cut(batch, images);
        return tree(
            blocks
                .into_iter()
                .map(|images| ended(sum(images, 0..rows)))
                .collect(),
        );
    }
    let some = (2 * (256 / columns)).max(2);
    let image = |n: usize| {
        let blocks = cut(rows, some);
        tree(
            blocks
                .into_iter()
                .map(|rows| ended(sum(n..n + 1, rows)))
                .collect(),
        )
    };
    tree((0..batch).map(image).collect())
}

fn grid(rows: usize, columns: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).flat_map(move |row| (0..columns).map(move |column| (row, column)))
}

/// The padded input, or 0.
fn at(x: &[f32], s: &ConvShape, n: usize, row: usize, column: usize, channel: usize) -> f32 {
    let inside =
        |dim: usize, place: usize| place >= s.padding[dim] && place < s.input[dim] + s.padding[dim];
    if !inside(0, row) || !inside(1, column) {
        return 0.0;
    }
    let (row, column) = (row - s.padding[0], column - s.padding[1]);
    x[((n * s.input[0] + row) * s.input[1] + column) * s.channels_in + channel]
}

fn weight(w: &[f32], s: &ConvShape, o: usize, i: usize, row: usize, column: usize) -> f32 {
    w[((o * s.channels_in + i) * s.kernel[0] + row) * s.kernel[1] + column]
}

fn direct(profile: Profile, x: &[f32], w: &[f32], s: &ConvShape) -> Vec<f32> {
    let [rows, columns] = s.output();
    let mut y = Vec::new();
    for n in 0..s.batch {
        for (row, column) in grid(rows, columns) {
            for o in 0..s.channels_out {
                let mut sum = 0.0;
                for (kr, kc) in grid(s.kernel[0], s.kernel[1]) {
                    let (r, c) = (row * s.stride[0] + kr, column * s.stride[1] + kc);
                    for i in 0..s.channels_in {
                        let x = at(x, s, n, r, c, i);
                        sum = plus_product(profile, sum, x, weight(w, s, o, i, kr, kc));
                    }
                }
                y.push(sum + 0.0);
            }
        }
    }
    y
}

fn direct_input(profile: Profile, dy: &[f32], w: &[f32], s: &ConvShape) -> Vec<f32> {
    let [rows, columns] = s.output();
    let output = |place: usize, tap: usize, dim: usize, count: usize| {
        let from = (place + s.padding[dim]).checked_sub(tap)?;
        let whole = from % s.stride[dim] == 0 && from / s.stride[dim] < count;
        whole.then_some(from / s.stride[dim])
    };
    let mut dx = Vec::new();
    for n in 0..s.batch {
        for (row, column) in grid(s.input[0], s.input[1]) {
            for i in 0..s.channels_in {
                let mut sum = 0.0;
                for (kr, kc) in grid(s.kernel[0], s.kernel[1]) {
                    let (kr, kc) = (s.kernel[0] - 1 - kr, s.kernel[1] - 1 - kc);
                    let place = (output(row, kr, 0, rows), output(column, kc, 1, columns));
                    let (Some(r), Some(c)) = place else {
                        continue;
                    };
                    for o in 0..s.channels_out {
                        let dy = dy[((n * rows + r) * columns + c) * s.channels_out + o];
                        sum = plus_product(profile, sum, dy, weight(w, s, o, i, kr, kc));
                    }
                }
                dx.push(sum + 0.0);
            }
        }
    }
    dx
}

fn direct_weight(profile: Profile, x: &[f32], dy: &[f32], s: &ConvShape) -> Vec<f32> {
    let [rows, columns] = s.output();
    weight_sum(s.batch, s.output(), |images, lines| {
        let mut sums = Vec::new();
        for (o, i) in grid(s.channels_out, s.channels_in) {
            for (kr, kc) in grid(s.kernel[0], s.kernel[1]) {
                let mut sum = 0.0;
                for n in images.clone() {
                    for (row, column) in grid(lines.len(), columns) {
                        let row = lines.start + row;
                        let (r, c) = (row * s.stride[0] + kr, column * s.stride[1] + kc);
                        let dy = dy[((n * rows + row) * columns + column) * s.channels_out + o];
                        sum = plus_product(profile, sum, at(x, s, n, r, c, i), dy);
                    }
                }
                sums.push(sum);
            }
        }
        sums
    })
}

fn input_1d([a, b, c, d]: [f32; 4]) -> [f32; 4] {
    [a - c, b + c, c - b, b - d]
}

fn filter_1d([a, b, c]: [f32; 3]) -> [f32; 4] {
    [a, ((a + c) + b) * 0.5, ((a + c) - b) * 0.5, c]
}

fn output_1d([a, b, c, d]: [f32; 4]) -> [f32; 2] {
    [(a + b) + c, (b - c) - d]
}

fn gradient_1d([a, b]: [f32; 2]) -> [f32; 4] {
    [a, a + b, a - b, -b]
}

fn filter_gradient_1d([a, b, c, d]: [f32; 4]) -> [f32; 3] {
    let half = (b + c) * 0.5;
    [a + half, (b - c) * 0.5, half + d]
}

/// A transform along rows, then along columns.
fn both<const N: usize, const M: usize>(
    f: impl Fn([f32; N]) -> [f32; M],
    tile: impl Fn(usize, usize) -> f32,
) -> [[f32; M]; M] {
    let columns: [[f32; M]; N] = std::array::from_fn(|c| f(std::array::from_fn(|r| tile(r, c))));
    std::array::from_fn(|r| f(std::array::from_fn(|c| columns[c][r])))
}

/// With the kernel `turned` around, `w` is that of the transposed convolution.
fn winograd(profile: Profile, x: &[f32], w: &[f32], s: &ConvShape, turned: bool) -> Vec<f32> {
    let tap = |o: usize, i: usize, r: usize, c: usize| match turned {
        false => w[((o * s.channels_in + i) * 3 + r) * 3 + c],
        true => w[((i * s.channels_out + o) * 3 + 2 - r) * 3 + 2 - c],
    };
    let filters: Vec<_> = grid(s.channels_out, s.channels_in)
        .map(|(o, i)| both(filter_1d, |r, c| tap(o, i, r, c)))
        .collect();
    let [rows, columns] = s.output();
    let mut y = vec![0.0; s.output_len()];
    for n in 0..s.batch {
        for (tr, tc) in grid(s.tiles()[0], s.tiles()[1]) {
            let tiles: Vec<_> = (0..s.channels_in)
                .map(|i| both(input_1d, |r, c| at(x, s, n, 2 * tr + r, 2 * tc + c, i)))
                .collect();
            for (o, filters) in filters.chunks_exact(s.channels_in).enumerate() {
                let product = |r: usize, c: usize| {
                    let sum = (tiles.iter().zip(filters)).fold(0.0, |sum, (t, f)| {
                        plus_product(profile, sum, t[r][c], f[r][c])
                    });
                    sum + 0.0
                };
                let outputs = both(output_1d, product);
                for (r, c) in grid(2, 2) {
                    let (row, column) = (2 * tr + r, 2 * tc + c);
                    if row < rows && column < columns {
                        let at = ((n * rows + row) * columns + column) * s.channels_out + o;
                        y[at] = outputs[r][c];
                    }
                }
            }
        }
    }
    y
}

fn winograd_weight(profile: Profile, x: &[f32], dy: &[f32], s: &ConvShape) -> Vec<f32> {
    let [rows, columns] = s.output();
    let gradient =
        |n: usize, row: usize, column: usize, o: usize| match row < rows && column < columns {
            true => dy[((n * rows + row) * columns + column) * s.channels_out + o],
            false => 0.0,
        };
    let sums = weight_sum(s.batch, s.output(), |images, lines| {
        let mut sums = vec![0.0; s.channels_out * s.channels_in * 16];
        for n in images {
            for (tr, tc) in grid(lines.len().div_ceil(2), s.tiles()[1]) {
                let tr = lines.start / 2 + tr;
                let inputs: Vec<_> = (0..s.channels_in)
                    .map(|i| both(input_1d, |r, c| at(x, s, n, 2 * tr + r, 2 * tc + c, i)))
                    .collect();
                for o in 0..s.channels_out {
                    let g = both(gradient_1d, |r, c| gradient(n, 2 * tr + r, 2 * tc + c, o));
                    for (i, input) in inputs.iter().enumerate() {
                        for (r, c) in grid(4, 4) {
                            let sum = &mut sums[((o * s.channels_in + i) * 4 + r) * 4 + c];
                            *sum = plus_product(profile, *sum, input[r][c], g[r][c]);
                        }
                    }
                }
            }
        }
        sums
    });
    let filters = sums.chunks_exact(16);
    filters
        .flat_map(|sums| both(filter_gradient_1d, |r, c| sums[4 * r + c]))
        .flatten()
        .collect()
}

fn check_convolution(s: &ConvShape) {
    check_convolution_of(s, values);
    check_convolution_of(s, tiny);
    check_convolution_of(s, zeros);
}

fn check_convolution_of(s: &ConvShape, draw: fn(u32, usize) -> Vec<f32>) {
    let [x, w, dy] = [(1, s.input_len()), (2, s.weight_len()), (3, s.output_len())]
        .map(|(seed, count)| draw(seed, count));
    for profile in Profile::ALL {
        let (y, dx, dw) = match s.is_winograd() {
            false => (
                direct(profile, &x, &w, s),
                direct_input(profile, &dy, &w, s),
                direct_weight(profile, &x, &dy, s),
            ),
            true => (
                winograd(profile, &x, &w, s, false),
                winograd(profile, &dy, &w, &s.transposed(), true),
                winograd_weight(profile, &x, &dy, s),
            ),
        };
        for isa in Isa::present() {
            isa.make_current();
            let what = |part: &str| format!("{part} of {s:?}, {profile} {isa}");
            same(&conv::forward(profile, &x, &w, s), &y, &what("output"));
            let found = conv::backward_input(profile, &dy, &w, s);
            same(&found, &dx, &what("gradient of the input"));
            let found = conv::backward_weight(profile, &x, &dy, s);
            same(&found, &dw, &what("gradient of the weights"));
        }
    }
}

fn shape(input: [usize; 2], channels: [usize; 2], kernel: [usize; 2]) -> ConvShape {
    ConvShape {
        batch: 2,
        channels_in: channels[0],
        input,
        channels_out: channels[1],
        kernel,
        stride: [1, 1],
        padding: [0, 0],
    }
}

/// Whether the kernel fits the padded input.
fn fits(s: &ConvShape) -> bool {
    (0..2).all(|d| s.padding[d] < s.kernel[d] && s.input[d] + 2 * s.padding[d] >= s.kernel[d])
}

#[test]
fn convolutions_of_all_small_shapes_are_as_defined() {
    for kernel in [[1, 1], [1, 3], [2, 2], [3, 3], [5, 4]] {
        for input in [[1, 1], [2, 5], [6, 3], [7, 7]] {
            for stride in [[1, 1], [2, 2], [3, 1]] {
                for padding in [[0, 0], [1, 1], [2, 0]] {
                    let s = ConvShape {
                        stride,
                        padding,
                        ..shape(input, [2, 3], kernel)
                    };
                    if fits(&s) {
                        check_convolution(&s);
                    }
                }
            }
        }
    }
}

#[test]
fn convolutions_with_every_tail_of_a_vector_are_as_defined() {
    for channels in [1, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 50] {
        for other in [1, 5, 16, 34] {
            for channels in [[channels, other], [other, channels]] {
                let s = ConvShape {
                    stride: [2, 1],
                    padding: [1, 1],
                    ..shape([4, 19], channels, [3, 3])
                };
                check_convolution(&s);
            }
        }
    }
}

#[test]
fn minimal_filtering_of_all_small_shapes_is_as_defined() {
    for input in [[1, 1], [2, 2], [3, 4], [5, 7], [8, 8], [4, 33]] {
        for padding in [[0, 0], [1, 1], [2, 1]] {
            for channels in [[16, 16], [17, 16], [16, 35], [48, 32]] {
                let s = ConvShape {
                    padding,
                    ..shape(input, channels, [3, 3])
                };
                if fits(&s) {
                    assert!(s.is_winograd());
                    check_convolution(&s);
                }
            }
        }
    }
}

/// Weights that pass by once for tiles of several images, or of several rows of one; sums in pieces.
#[test]
fn wide_layers_are_as_defined() {
    for (batch, input) in [(9, [4, 4]), (35, [1, 2]), (3, [18, 17])] {
        check_convolution(&ConvShape {
            batch,
            padding: [1, 1],
            ..shape(input, [90, 140], [3, 3])
        });
    }
    for (stride, kernel) in [([2, 2], [3, 3]), ([1, 1], [1, 1])] {
        check_convolution(&ConvShape {
            batch: 2,
            padding: [1, 1],
            stride,
            ..shape([5, 6], [140, 35], kernel)
        });
    }
}

#[test]
fn gradients_of_weights_over_several_blocks_are_as_defined() {
    for channels in [[3, 5], [16, 16]] {
        for (batch, input) in [(9, [16, 16]), (3, [40, 30]), (85, [5, 5])] {
            check_convolution(&ConvShape {
                batch,
                padding: [1, 1],
                ..shape(input, channels, [3, 3])
            });
        }
    }
}

#[test]
fn linear_layers_are_as_defined() {
    for draw in [values, tiny, zeros] {
        for sizes in [
            [1, 1, 1],
            [5, 3, 2],
            [9, 12, 8],
            [9, 12, 9],
            [33, 17, 40],
            [70, 50, 16],
            [5, 300, 40],
            [5, 40, 300],
            [2100, 4, 3],
            [33_000, 1, 2],
        ] {
            check_linear(sizes, draw);
        }
    }
}

fn check_linear([rows, inputs, outputs]: [usize; 3], draw: fn(u32, usize) -> Vec<f32>) {
    {
        let [x, w, dy] = [
            (1, rows * inputs),
            (2, inputs * outputs),
            (3, rows * outputs),
        ]
        .map(|(seed, count)| draw(seed, count));
        everywhere(|profile, place| {
            let what = format!("{rows}×{inputs}×{outputs}, {place}");
            let add = |sum, a, b| plus_product(profile, sum, a, b);
            let y: Vec<f32> = grid(rows, outputs)
                .map(|(r, o)| {
                    let sum = (0..inputs).fold(0.0, |sum, i| {
                        add(sum, x[r * inputs + i], w[i * outputs + o])
                    });
                    sum + 0.0
                })
                .collect();
            let found = linear::forward(profile, &x, &w, inputs, outputs);
            same(&found, &y, &what);
            let dx: Vec<f32> = grid(rows, inputs)
                .map(|(r, i)| {
                    let sum = (0..outputs).fold(0.0, |sum, o| {
                        add(sum, dy[r * outputs + o], w[i * outputs + o])
                    });
                    sum + 0.0
                })
                .collect();
            let found = linear::backward_input(profile, &dy, &w, inputs, outputs);
            same(&found, &dx, &what);
            let dw = weight_sum(rows, [1, 1], |rows, _| {
                grid(inputs, outputs)
                    .map(|(i, o)| {
                        rows.clone().fold(0.0, |sum, r| {
                            add(sum, x[r * inputs + i], dy[r * outputs + o])
                        })
                    })
                    .collect()
            });
            let found = linear::backward_weight(profile, &x, &dy, inputs, outputs);
            same(&found, &dw, &what);
        });
    }
}

/// For each channel the long sum over its pixels: `f(sum, index, channel)` over them.
fn channel_sums(
    [images, pixels, channels]: [usize; 3],
    f: impl Fn(f32, usize, usize) -> f32,
) -> Vec<f32> {
    let block = |image: usize, block: usize| {
        let pixels = image * pixels + block * 4..image * pixels + pixels.min(block * 4 + 4);
        ended(
            (0..channels)
                .map(|c| {
                    pixels
                        .clone()
                        .fold(0.0, |sum, p| f(sum, p * channels + c, c))
                })
                .collect(),
        )
    };
    let image = |image: usize| tree((0..pixels.div_ceil(4)).map(|b| block(image, b)).collect());
    tree((0..images).map(image).collect())
}

#[test]
fn sums_over_channels_are_as_defined() {
    for sizes in [[1, 1, 1], [9, 1, 10], [3, 49, 6], [5, 64, 17]] {
        let [images, pixels, channels] = sizes;
        for draw in [values, tiny, zeros] {
            let x = draw(1, images * pixels * channels);
            let expected = channel_sums(sizes, |sum, at, _| sum + x[at]);
            everywhere(|_, place| {
                let found = sums::column_sums(&x, channels, pixels);
                same(&found, &expected, &format!("{sizes:?}, {place}"));
            });
        }
    }
}

#[test]
fn gradients_of_weights_over_no_rows_are_zeros() {
    // After values that may be handed out again.
    let used = linear::backward_weight(
        Profile::UnfusedV2,
        &values(1, 600),
        &values(2, 128),
        300,
        64,
    );
    drop(used);
    let dw = linear::backward_weight(Profile::UnfusedV2, &[], &[], 300, 64);
    same(&dw, &vec![0.0; 300 * 64], "no rows");
}

#[test]
fn batch_normalisation_is_as_defined() {
    for sizes in [
        [1, 1, 1],
        [3, 7, 3],
        [13, 10, 16],
        [5, 49, 33],
        [9, 4, 48],
        [2, 81, 32],
    ] {
        check_batch_norm(sizes, values);
        check_batch_norm(sizes, tiny);
        check_batch_norm(sizes, zeros);
    }
}

fn check_batch_norm(sizes: [usize; 3], draw: fn(u32, usize) -> Vec<f32>) {
    {
        let [images, pixels, channels] = sizes;
        let rows = images * pixels;
        let count = rows * channels;
        let [x, shortcut, dy] = [1, 2, 3].map(|seed| draw(seed, count));
        let [gamma, beta] = [4, 5].map(|seed| draw(seed, channels));
        let m = rows as f32;
        let over = |sums: Vec<f32>| -> Vec<f32> { sums.iter().map(|sum| sum / m).collect() };
        everywhere(|profile, place| {
            let what = format!("{sizes:?}, {place}");
            let add = |sum, a, b| plus_product(profile, sum, a, b);
            let mean = over(channel_sums(sizes, |sum, at, _| sum + x[at]));
            let centred = |at: usize| x[at] - mean[at % channels];
            let variance = over(channel_sums(sizes, |sum, at, _| {
                add(sum, centred(at), centred(at))
            }));
            let found = norm::statistics(profile, &x, channels, pixels);
            same(&found.mean, &mean, &what);
            same(&found.variance, &variance, &what);
            let moved: Vec<f32> = (gamma.iter().zip(&mean))
                .map(|(average, mean)| add(average * 0.9, *mean, 0.1))
                .collect();
            same(
                &norm::moved(profile, &gamma, 0.9, &mean, 0.1),
                &moved,
                &what,
            );

            let inverse: Vec<f32> = (variance.iter()).map(|v| 1.0 / (v + 1e-5).sqrt()).collect();
            same(&norm::inverse_deviation(&variance, 1e-5), &inverse, &what);
            let scale = |c: usize| gamma[c] * inverse[c];
            for (adds, rectified) in [(false, false), (false, true), (true, false), (true, true)] {
                let output = |at: usize| {
                    let c = at % channels;
                    let mut y = add(beta[c], centred(at), scale(c));
                    if adds {
                        y += shortcut[at];
                    }
                    if rectified && y <= 0.0 { 0.0 } else { y }
                };
                let y: Vec<f32> = (0..count).map(output).collect();
                let added = adds.then_some(&shortcut[..]);
                let found = norm::normalise(
                    profile, &x, &mean, &inverse, &gamma, &beta, added, rectified,
                );
                same(&found, &y, &what);

                for fixed in [false, true] {
                    let passes = |at: usize| !rectified || y[at] > 0.0;
                    let dz: Vec<f32> = (0..count)
                        .map(|at| if passes(at) { dy[at] } else { 0.0 })
                        .collect();
                    let dbeta = channel_sums(sizes, |sum, at, _| sum + dz[at]);
                    let raw = channel_sums(sizes, |sum, at, _| add(sum, dz[at], centred(at)));
                    let dgamma: Vec<f32> = raw.iter().zip(&inverse).map(|(r, i)| r * i).collect();
                    let gradient = |at: usize| {
                        let c = at % channels;
                        let (b, slope) = match fixed {
                            true => (0.0, 0.0),
                            false => (dbeta[c] / m, dgamma[c] * inverse[c] / m),
                        };
                        scale(c) * add(dz[at] - b, -centred(at), slope)
                    };
                    let dx: Vec<f32> = (0..count).map(gradient).collect();
                    let saved = norm::Saved {
                        x: &x,
                        rectified: rectified.then_some(&y[..]),
                        mean: &mean,
                        inverse: &inverse,
                        gamma: &gamma,
                    };
                    let options = norm::Backward {
                        fixed,
                        with_shortcut: adds,
                        pixels,
                    };
                    let found = norm::backward(profile, &dy, saved, options);
                    same(&found.x, &dx, &what);
                    same(&found.gamma, &dgamma, &what);
                    same(&found.beta, &dbeta, &what);
                    assert_eq!(found.shortcut, adds.then(|| dz.into()));
                }
            }
        });
    }
}

#[test]
fn pooling_is_as_defined() {
    for channels in [1, 3, 6, 8, 16, 17, 33] {
        check_pooling(channels);
    }
}

fn check_pooling(channels: usize) {
    let s = PoolShape {
        batch: 2,
        channels,
        input: [7, 6],
        window: [3, 2],
        stride: [2, 1],
    };
    // Eighths, so that a window has equal greatest values.
    let x: Vec<f32> = (values(1, 2 * 7 * 6 * channels).iter())
        .map(|v| (v * 8.0).round() / 8.0)
        .collect();
    let [rows, columns] = s.output();
    let dy = values(2, 2 * rows * columns * channels);
    let place =
        |n: usize, r: usize, c: usize, channel: usize| ((n * 7 + r) * 6 + c) * channels + channel;
    let (mut average, mut max) = (Vec::new(), Vec::new());
    let (mut average_dx, mut max_dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    for n in 0..2 {
        for (r, c) in grid(rows, columns) {
            for channel in 0..channels {
                let window: Vec<usize> = grid(3, 2)
                    .map(|(i, j)| place(n, 2 * r + i, c + j, channel))
                    .collect();
                let dy = dy[average.len()];
                average.push(window.iter().fold(0.0, |sum, at| sum + x[*at]) / 6.0);
                let greatest = |a: usize, b: usize| if x[b] > x[a] { b } else { a };
                let best = window.iter().copied().reduce(greatest).unwrap();
                max.push(x[best]);
                max_dx[best] += dy;
                window.iter().for_each(|at| average_dx[*at] += dy / 6.0);
            }
        }
    }
    everywhere(|_, place| {
        let what = |name: &str| format!("{name}, {channels} channels, {place}");
        same(&pool::average(&x, &s), &average, &what("average"));
        same(&pool::max(&x, &s), &max, &what("max"));
        let found = pool::average_backward(&dy, &s);
        same(&found, &average_dx, &what("gradient of average"));
        let found = pool::max_backward(&x, &dy, &s);
        same(&found, &max_dx, &what("gradient of max"));
    });
}

#[test]
fn cross_entropy_is_as_defined() {
    let (rows, classes) = (5, 10);
    let scores: Vec<f32> = values(1, rows * classes).iter().map(|v| v * 20.0).collect();
    let mut targets = vec![0.0; rows * classes];
    (0..rows).for_each(|row| targets[row * classes + row] = 1.0);
    for profile in Profile::ALL {
        let mut losses = Vec::new();
        let mut gradient = Vec::new();
        for row in 0..rows {
            let scores = &scores[row * classes..(row + 1) * classes];
            let most = scores.iter().copied().fold(f32::MIN, f32::max);
            let sum = (scores.iter()).fold(0.0, |sum, s| sum + exp(profile, s - most));
            losses.push(vec![(scores[row] - most) - ln(profile, sum)]);
            for (class, score) in scores.iter().enumerate() {
                let share = exp(profile, score - most) / sum;
                let target: f32 = if class == row { 1.0 } else { 0.0 };
                gradient.push(plus_product(profile, -target, share, 1.0) * (0.7 / rows as f32));
            }
        }
        let found = loss::cross_entropy(profile, &scores, &targets, classes);
        let total = tree(losses)[0];
        same(&[found], &[-total / rows as f32], "loss");
        let found = loss::cross_entropy_backward(profile, &scores, &targets, classes, 0.7);
        same(&found, &gradient, "gradient");
    }
}

#[test]
fn elementwise_operators_are_as_defined() {
    for count in [0, 1, 15, 16, 17, 40_000] {
        let [a, b] = [1, 2].map(|seed| values(seed, count));
        everywhere(|_, place| {
            let map = |f: &dyn Fn(f32, f32) -> f32| -> Vec<f32> {
                a.iter().zip(&b).map(|(a, b)| f(*a, *b)).collect()
            };
            let rectified = map(&|a, _| if a > 0.0 { a } else { 0.0 });
            same(&elementwise::relu(&a), &rectified, place);
            let gradient = map(&|a, b| if b > 0.0 { a } else { 0.0 });
            same(&elementwise::relu_backward(&a, &b), &gradient, place);
            same(&elementwise::multiply(&a, &b), &map(&|a, b| a * b), place);
        });
    }
}

#[test]
fn updates_are_as_defined() {
    let momentum = |nesterov| {
        Some(Momentum {
            kept: 0.9,
            undamped: 0.7,
            nesterov,
        })
    };
    for (count, draw) in [
        (1, values as fn(_, _) -> _),
        (40_000, values),
        (40_000, tiny),
        (99, zeros),
    ] {
        let [w, g, v, m] = [1, 2, 3, 4].map(|seed| draw(seed, count));
        let squares: Vec<f32> = draw(5, count).iter().map(|value| value.abs()).collect();
        everywhere(|profile, place| {
            let blend = |a: f32, ka: f32, b: f32, kb: f32| plus_product(profile, a * ka, b, kb);
            for (decay, momentum) in [
                (None, None),
                (Some(1e-2), None),
                (Some(1e-2), momentum(false)),
                (None, momentum(true)),
            ] {
                let rule = SgdRule {
                    rate: 0.1,
                    decay,
                    momentum,
                };
                for last in [None, Some(&v[..])] {
                    let (mut weights, mut velocities) = (vec![], vec![]);
                    for i in 0..count {
                        let g = decay.map_or(g[i], |decay| blend(g[i], 1.0, w[i], decay));
                        let mut step = g;
                        if let Some(momentum) = momentum {
                            let velocity = match last {
                                None => g,
                                Some(v) => blend(g, momentum.undamped, v[i], momentum.kept),
                            };
                            step = match momentum.nesterov {
                                true => blend(g, 1.0, velocity, momentum.kept),
                                false => velocity,
                            };
                            velocities.push(velocity);
                        }
                        weights.push(blend(w[i], 1.0, step, -0.1));
                    }
                    let found = updates::sgd(profile, &w, &g, last, rule);
                    same(&found.0, &weights, place);
                    same(found.1.as_deref().unwrap_or(&[]), &velocities, place);
                }
            }
            for decay in [None, Some(1e-2)] {
                let rule = AdamRule {
                    rate: 0.1,
                    beta1: 0.9,
                    rest1: 0.1,
                    beta2: 0.999,
                    rest2: 0.001,
                    correction: 0.3,
                    epsilon: 1e-7,
                    coupled_decay: decay,
                    kept: 0.99,
                };
                let mut expected = [vec![], vec![], vec![]];
                for i in 0..count {
                    let g = decay.map_or(g[i], |decay| blend(g[i], 1.0, w[i], decay));
                    let m = blend(m[i], 0.9, g, 0.1);
                    let v = blend(squares[i], 0.999, g * g, 0.001);
                    let step = m * 0.3 / (v.sqrt() + 1e-7);
                    let next = [blend(w[i], 0.99, step, -0.1), m, v];
                    expected
                        .iter_mut()
                        .zip(next)
                        .for_each(|(all, next)| all.push(next));
                }
                let found = updates::adam(profile, &w, &g, [&m, &squares], rule);
                found
                    .iter()
                    .zip(&expected)
                    .for_each(|(found, expected)| same(found, expected, place));
            }
        });
    }
}

#[test]
fn the_rectifier_leaves_no_negative_zero_and_no_nan() {
    let y = elementwise::relu(&[-0.0, 0.0, f32::NAN, f32::NEG_INFINITY, f32::MIN_POSITIVE]);
    let bits: Vec<u32> = y.iter().map(|y| y.to_bits()).collect();
    assert_eq!(bits, [0, 0, 0, 0, f32::MIN_POSITIVE.to_bits()]);
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let s = ConvShape {
        batch: 37,
        padding: [1, 1],
        ..shape([8, 8], [16, 20], [3, 3])
    };
    let [x, w, dy] = [(1, s.input_len()), (2, s.weight_len()), (3, s.output_len())]
        .map(|(seed, count)| values(seed, count));
    let all = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            let p = Profile::UnfusedV2;
            let mut all = conv::forward(p, &x, &w, &s).to_vec();
            all.extend(&*conv::backward_input(p, &dy, &w, &s));
            all.extend(conv::backward_weight(p, &x, &dy, &s));
            all.extend(linear::backward_weight(p, &x, &x, 64, 64));
            all.extend(norm::statistics(p, &x, 16, 64).variance);
            all
        })
    };
    let one = all(1);
    for threads in [2, 3, 8] {
        same(&all(threads), &one, &format!("{threads} threads"));
    }
}
