//! What the probe computes: each operator, forward and backward.

use burn::tensor::{Device, Tensor, TensorData};

use super::values::{Kind, values};
use crate::optim::AdamConstants;
use crate::tensor::{Exact, ExactAdam, ExactSgd, Jointly, Normalisation, Parameter, Running};

type Case = fn(Exact, &Device) -> Results;

/// The operators in the order of `digests.rs`.
pub(super) const ALL: [(&str, Case); 16] = [
    ("transfer", transfer),
    ("add", add),
    ("multiply", multiply),
    ("relu", relu),
    ("linear", linear),
    ("conv2d", conv2d),
    ("conv2d_winograd", conv2d_winograd),
    ("add_bias", add_bias),
    ("batch_norm", batch_norm),
    ("batch_norm_fixed", batch_norm_fixed),
    ("max_pool", max_pool),
    ("average_pool", average_pool),
    ("shortcut", shortcut),
    ("cross_entropy", cross_entropy),
    ("sgd", sgd),
    ("adam", adam),
];

fn tensor<const D: usize>(kind: Kind, seed: u32, shape: [usize; D], device: &Device) -> Tensor<D> {
    let count = shape.iter().product();
    Tensor::from_data(TensorData::new(values(kind, seed, count), shape), device)
}

/// What came of each tensor that was read: its values, or why the device did not give them.
pub(super) type Results = Vec<Result<Vec<f32>, String>>;

fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, String> {
    let data = tensor.try_into_data().map_err(|error| error.to_string())?;
    let values = data.as_slice().map(<[f32]>::to_vec);
    values.map_err(|error| error.to_string())
}

/// The output of `f`, and the gradients of its operands where the output's gradient is `dy`.
fn differentiated<const D: usize, const N: usize>(
    operands: [Tensor<D>; N],
    kind: Kind,
    f: impl Fn([Tensor<D>; N]) -> Tensor<D>,
) -> Results {
    let operands = operands.map(Tensor::require_grad);
    let y = f(operands.clone());
    let dy = tensor(kind, 99, y.dims(), &y.device());
    let mut results = vec![read(y.clone().inner())];
    results.extend(pulled(y, dy, |gradients| {
        operands
            .iter()
            .filter_map(|x| x.grad(gradients))
            .map(read)
            .collect()
    }));
    results
}

/// Runs backward with `dy` as the gradient of `y`.
fn pulled<const D: usize>(
    y: Tensor<D>,
    dy: Tensor<D>,
    read: impl FnOnce(&burn::tensor::Gradients) -> Results,
) -> Results {
    // The gradient of the sum of y·dy is dy: products with one, and moves, but no sum.
    let count = y.dims().iter().product::<usize>();
    let weighted = (y * dy).reshape([count]);
    let gradients = weighted.backward();
    read(&gradients)
}

fn for_all(case: impl Fn(Kind) -> Results) -> Results {
    Kind::ALL.into_iter().flat_map(case).collect()
}

/// Values go to the device and come back: subnormals and signed zeros too.
fn transfer(_: Exact, device: &Device) -> Results {
    let special = [0, 1, 0x007f_ffff, 0x0080_0000, 0x7f7f_ffff].map(f32::from_bits);
    let mut all = special.to_vec();
    all.extend(special.map(|value| -value));
    let count = all.len();
    let sent = Tensor::<1>::from_data(TensorData::new(all, [count]), device);
    let turned = sent.clone().reshape([2, 5]).permute([1, 0]).reshape([10]);
    vec![read(sent), read(turned)]
}

/// Burn's own addition, which accumulates gradients.
fn add(_: Exact, device: &Device) -> Results {
    for_all(|kind| {
        let [a, b] = [1, 2].map(|seed| tensor(kind, seed, [400], device).inner());
        vec![read(a + b)]
    })
}

fn multiply(exact: Exact, device: &Device) -> Results {
    for_all(|kind| {
        let [a, mask] = [1, 2].map(|seed| tensor(kind, seed, [4, 100], device));
        differentiated([a], kind, |[a]| exact.dropout(a, mask.clone()))
    })
}

fn relu(exact: Exact, device: &Device) -> Results {
    for_all(|kind| differentiated([tensor(kind, 1, [400], device)], kind, |[x]| exact.relu(x)))
}

fn linear(exact: Exact, device: &Device) -> Results {
    for_all(|kind| {
        // Sums of one product too.
        let each = |[rows, inputs, outputs]: [usize; 3]| {
            let operands = [
                tensor(kind, 1, [rows, inputs], device),
                tensor(kind, 2, [inputs, outputs], device),
            ];
            differentiated(operands, kind, |[x, w]| exact.linear(x, w, None))
        };
        [[37, 29, 18], [1, 1, 16]]
            .into_iter()
            .flat_map(each)
            .collect()
    })
}

fn conv2d(exact: Exact, device: &Device) -> Results {
    // Odd sizes, channels on both sides of 16; blocks of several images, and of an image's rows.
    let shapes = [
        ([2, 9, 7, 3], [17, 3, 3, 3], [1, 1], [1, 1]),
        ([9, 8, 8, 16], [16, 16, 3, 3], [2, 2], [1, 1]),
        ([2, 24, 23, 2], [3, 2, 3, 3], [1, 1], [1, 1]),
        ([2, 6, 9, 5], [4, 5, 5, 5], [1, 1], [0, 2]),
        ([2, 5, 5, 6], [7, 6, 1, 1], [2, 2], [0, 0]),
    ];
    convolutions(exact, device, &shapes)
}

/// 3×3 without stride and from 16 channels on: minimal filtering.
fn conv2d_winograd(exact: Exact, device: &Device) -> Results {
    let shapes = [
        ([9, 8, 8, 16], [16, 16, 3, 3], [1, 1], [1, 1]),
        ([1, 24, 23, 16], [16, 16, 3, 3], [1, 1], [1, 1]),
        ([2, 7, 5, 17], [19, 17, 3, 3], [1, 1], [1, 0]),
    ];
    convolutions(exact, device, &shapes)
}

/// Input, weights, stride and padding of a convolution.
type Shapes = ([usize; 4], [usize; 4], [usize; 2], [usize; 2]);

fn convolutions(exact: Exact, device: &Device, shapes: &[Shapes]) -> Results {
    for_all(|kind| {
        let each = |&(x, w, stride, padding): &Shapes| {
            let operands = [tensor(kind, 1, x, device), tensor(kind, 2, w, device)];
            differentiated(operands, kind, |[x, w]| {
                exact.conv2d(x, w, None, stride, padding)
            })
        };
        shapes.iter().flat_map(each).collect()
    })
}

/// The gradient of the bias is a long sum over the pixels of a channel.
fn add_bias(exact: Exact, device: &Device) -> Results {
    for_all(|kind| {
        let zeros = |shape: [usize; 4]| Tensor::<4>::zeros(shape, device);
        let bias = tensor(kind, 2, [3], device).require_grad();
        let y = exact.conv2d(
            zeros([300, 3, 7, 4]),
            zeros([3, 4, 1, 1]),
            Some(bias.clone()),
            [1, 1],
            [0, 0],
        );
        let dy = tensor(kind, 99, y.dims(), device);
        let mut results = vec![read(y.clone().inner())];
        results.extend(pulled(y, dy, |gradients| {
            bias.grad(gradients).map(read).into_iter().collect()
        }));
        results
    })
}

/// Images of 12 × 13: 39 blocks.
fn images(kind: Kind, seed: u32, channels: usize, device: &Device) -> Tensor<4> {
    tensor(kind, seed, [8, 12, 13, channels], device)
}

fn batch_norm(exact: Exact, device: &Device) -> Results {
    let mut results = norm(exact, device, false);
    // Channels on both sides of 16, single pixels; huge values have no finite variance.
    results.extend(for_all(|kind| {
        let of = |shape: [usize; 4]| {
            let channels = shape[3];
            let [mean, variance, gamma, beta] =
                [6, 7, 3, 4].map(|seed| tensor(Kind::Ordinary, seed, [channels], device));
            let options = Normalisation {
                epsilon: 1e-3,
                rectified: false,
                rate: 0.1,
            };
            let x = tensor(kind, 1, shape, device);
            let running = Running { mean, variance };
            let (_, moved) = exact.batch_norm(x, [gamma, beta], running, None, options);
            [read(moved.mean), read(moved.variance)]
        };
        let shapes = [
            [8, 12, 13, 16],
            [8, 12, 13, 5],
            [1, 1, 1, 16],
            [3, 2, 1, 33],
        ];
        shapes.into_iter().flat_map(of).collect()
    }));
    results
}

fn batch_norm_fixed(exact: Exact, device: &Device) -> Results {
    norm(exact, device, true)
}

fn norm(exact: Exact, device: &Device, fixed: bool) -> Results {
    // Huge values have no finite variance.
    let kinds = [
        Kind::Ordinary,
        Kind::Coarse,
        Kind::Tiny,
        Kind::Vanishing,
        Kind::Zeros,
    ];
    let mut results = Vec::new();
    for (kind, channels) in kinds.into_iter().zip([16, 5, 16, 16, 16]) {
        for (adds, rectified) in [(false, false), (true, true)] {
            let [x, shortcut] =
                [1, 2].map(|seed| images(kind, seed, channels, device).require_grad());
            let [gamma, beta] =
                [3, 4].map(|seed| tensor(Kind::Ordinary, seed, [channels], device).require_grad());
            let [mean, variance] =
                [5, 6].map(|seed| tensor::<1>(Kind::Ordinary, seed, [channels], device).abs());
            let statistics = Running { mean, variance };
            let options = Normalisation {
                epsilon: 1e-5,
                rectified,
                rate: 0.1,
            };
            let added = adds.then(|| shortcut.clone());
            let parameters = [gamma.clone(), beta.clone()];
            let y = match fixed {
                true => exact.batch_norm_fixed(x.clone(), parameters, statistics, added, options),
                false => {
                    exact
                        .batch_norm(x.clone(), parameters, statistics, added, options)
                        .0
                }
            };
            let dy = tensor(kind, 99, y.dims(), device);
            results.push(read(y.clone().inner()));
            results.extend(pulled(y, dy, |gradients| {
                let images = [&x, &shortcut].map(|x| x.grad(gradients).map(read));
                let vectors = [&gamma, &beta].map(|x| x.grad(gradients).map(read));
                images.into_iter().chain(vectors).flatten().collect()
            }));
        }
    }
    results
}

fn max_pool(exact: Exact, device: &Device) -> Results {
    for_all(|kind| {
        let each = |(window, stride)| {
            differentiated([images(kind, 1, 6, device)], kind, |[x]| {
                exact.max_pool(x, window, stride)
            })
        };
        [([2, 2], [2, 2]), ([3, 3], [2, 1])]
            .into_iter()
            .flat_map(each)
            .collect()
    })
}

fn average_pool(exact: Exact, device: &Device) -> Results {
    for_all(|kind| {
        let each = |(window, stride)| {
            differentiated([images(kind, 1, 6, device)], kind, |[x]| {
                exact.average_pool(x, window, stride)
            })
        };
        [([12, 13], [1, 1]), ([3, 3], [2, 1])]
            .into_iter()
            .flat_map(each)
            .collect()
    })
}

fn shortcut(exact: Exact, device: &Device) -> Results {
    for_all(|kind| {
        differentiated([images(kind, 1, 3, device)], kind, |[x]| {
            exact.shortcut(x, 8, 2)
        })
    })
}

fn cross_entropy(exact: Exact, device: &Device) -> Results {
    // Scores from equal to so far apart that shares underflow.
    let scales = [1.0, 30.0, 95.0];
    let mut results = Vec::new();
    for scale in scales {
        let (rows, classes) = (64, 10);
        let scores: Vec<_> = (values(Kind::Ordinary, 1, rows * classes).into_iter())
            .map(|value| value * scale)
            .collect();
        let mut targets = vec![0f32; rows * classes];
        for row in 0..rows {
            targets[row * classes + row * 7 % classes] = 1.0;
        }
        let scores = Tensor::<2>::from_data(TensorData::new(scores, [rows, classes]), device);
        let targets = Tensor::<2>::from_data(TensorData::new(targets, [rows, classes]), device);
        let scores = scores.require_grad();
        let loss = exact.cross_entropy(scores.clone(), targets);
        results.push(read(loss.clone().inner()));
        let gradients = loss.backward();
        results.extend(scores.grad(&gradients).map(read));
    }
    results
}

/// Tensors of several lengths, more than one launch takes on small devices: the first step and the next.
fn updates<O: Jointly>(kind: Kind, rule: &O, device: &Device) -> Results {
    let mut lengths = vec![400, 1, 63, 65];
    lengths.extend([17; 8]);
    let mut parameters: Vec<_> = (lengths.iter().zip(0..))
        .map(|(&len, seed)| (tensor(kind, seed, [len], device).inner(), None))
        .collect();
    let mut results = Vec::new();
    for step in 1..=2 {
        let all =
            parameters
                .into_iter()
                .zip(0..)
                .map(|((weight, state), seed): ((Tensor<1>, _), _)| Parameter {
                    rank: 1,
                    gradient: tensor(kind, 100 * step + seed, weight.dims(), device)
                        .inner()
                        .into_bridge(),
                    weight: weight.into_bridge(),
                    state,
                });
        parameters = (rule.step_all(0.05, all.collect()).into_iter())
            .map(|(weight, state)| (Tensor::from_bridge(weight), Some(state)))
            .collect();
        results.extend(parameters.iter().map(|(weight, _)| read(weight.clone())));
    }
    results
}

fn sgd(exact: Exact, device: &Device) -> Results {
    let rules = [
        (0.0, 0.0, 0.0, false),
        (0.0, 0.0, 1e-4, false),
        (0.9, 0.0, 1e-4, false),
        (0.9, 0.3, 0.0, true),
    ];
    for_all(|kind| {
        let of = |(momentum, dampening, weight_decay, nesterov)| {
            let rule = ExactSgd {
                exact,
                momentum,
                dampening,
                weight_decay,
                nesterov,
            };
            updates(kind, &rule, device)
        };
        rules.into_iter().flat_map(of).collect()
    })
}

fn adam(exact: Exact, device: &Device) -> Results {
    for_all(|kind| {
        let of = |(weight_decay, decoupled)| {
            let constants = AdamConstants {
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                weight_decay,
                decoupled,
            };
            updates(kind, &ExactAdam { exact, constants }, device)
        };
        [(0.0, false), (1e-3, false), (1e-2, true)]
            .into_iter()
            .flat_map(of)
            .collect()
    })
}
