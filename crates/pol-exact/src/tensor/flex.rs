//! The kernels on Burn's CPU backend.

use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, TensorData};
use burn_flex::{FlexTensor, Layout};
use burn_std::Bytes;

use super::backend::{Kernels, NormGradients, NormOptions, NormSaved, Normalised, forward_only};
use crate::cpu::norm::{self, Saved};
use crate::cpu::{Values, conv, elementwise, linear, loss, pool, recycle, sums, updates};
use crate::optim::{AdamRule, SgdRule};
use crate::profile::Profile;
use crate::shape::{ConvShape, PoolShape, ShortcutShape, pixels};

forward_only!(Flex);

/// The values of a tensor in order, in memory of their own if they aren't already.
struct Held(FlexTensor);

impl Held {
    fn of(tensor: FlexTensor) -> Self {
        match tensor.as_slice::<f32>() {
            Some(_) => Self(tensor),
            None => Self(tensor.to_contiguous()),
        }
    }

    fn get(&self) -> &[f32] {
        self.0.as_slice().unwrap_or(&[])
    }

    /// The tensor once more, for another operator.
    fn again(&self) -> FlexTensor {
        self.0.clone()
    }
}

impl Drop for Held {
    /// What nobody else holds is used again.
    fn drop(&mut self) {
        let gone = FlexTensor::from_data(TensorData::new(Vec::<f32>::new(), [0]));
        let tensor = std::mem::replace(&mut self.0, gone);
        let bytes = tensor.data_arc();
        drop(tensor);
        if let Ok(bytes) = Arc::try_unwrap(bytes)
            && let Ok(vector) = bytes.try_into_vec::<f32>()
        {
            recycle(vector);
        }
    }
}

fn tensor(values: impl Into<Values>, shape: &[usize]) -> FlexTensor {
    let (vector, start) = values.into().into_parts();
    let mut strides = vec![1; shape.len()];
    for dim in (1..shape.len()).rev() {
        strides[dim - 1] = strides[dim] * shape[dim] as isize;
    }
    let layout = Layout::new(shape.to_vec().into(), strides, start);
    FlexTensor::new(Bytes::from_elems(vector), layout, DType::F32)
}

fn dims(tensor: &FlexTensor) -> Vec<usize> {
    tensor.shape().to_vec()
}

fn unary<V: Into<Values>>(x: FlexTensor, f: impl FnOnce(&[f32]) -> V) -> FlexTensor {
    let shape = dims(&x);
    tensor(f(Held::of(x).get()), &shape)
}

fn binary<V: Into<Values>>(
    a: FlexTensor,
    b: FlexTensor,
    f: impl FnOnce(&[f32], &[f32]) -> V,
) -> FlexTensor {
    let shape = dims(&a);
    tensor(f(Held::of(a).get(), Held::of(b).get()), &shape)
}

/// `[2, channels]`, apart.
fn mean_and_variance(statistics: FlexTensor) -> [Vec<f32>; 2] {
    let statistics = Held::of(statistics);
    let (mean, variance) = statistics.get().split_at(statistics.get().len() / 2);
    [mean.to_vec(), variance.to_vec()]
}

fn normalised(
    x: FlexTensor,
    [gamma, beta]: [FlexTensor; 2],
    mean: &[f32],
    variance: &[f32],
    shortcut: Option<FlexTensor>,
    options: NormOptions,
) -> FlexTensor {
    let inverse = norm::inverse_deviation(variance, options.epsilon);
    let (gamma, beta) = (Held::of(gamma), Held::of(beta));
    let shortcut = shortcut.map(Held::of);
    unary(x, |x| {
        norm::normalise(
            options.profile,
            x,
            mean,
            &inverse,
            gamma.get(),
            beta.get(),
            shortcut.as_ref().map(Held::get),
            options.rectified,
        )
    })
}

impl Kernels for Flex {
    fn conv2d_forward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        shape: ConvShape,
        profile: Profile,
    ) -> FloatTensor<Self> {
        let y = conv::forward(profile, Held::of(x).get(), Held::of(w).get(), &shape);
        tensor(y, &shape.output_dims())
    }

    fn conv2d_input(
        dy: FloatTensor<Self>,
        w: FloatTensor<Self>,
        shape: ConvShape,
        profile: Profile,
    ) -> FloatTensor<Self> {
        let dx = conv::backward_input(profile, Held::of(dy).get(), Held::of(w).get(), &shape);
        tensor(dx, &shape.input_dims())
    }

    fn conv2d_weight(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        shape: ConvShape,
        profile: Profile,
    ) -> FloatTensor<Self> {
        let dw = conv::backward_weight(profile, Held::of(x).get(), Held::of(dy).get(), &shape);
        tensor(dw, &shape.weight_dims())
    }

    fn linear_forward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        profile: Profile,
    ) -> FloatTensor<Self> {
        let (rows, sizes) = (dims(&x)[0], dims(&w));
        let y = linear::forward(
            profile,
            Held::of(x).get(),
            Held::of(w).get(),
            sizes[0],
            sizes[1],
        );
        tensor(y, &[rows, sizes[1]])
    }

    fn linear_input(
        dy: FloatTensor<Self>,
        w: FloatTensor<Self>,
        profile: Profile,
    ) -> FloatTensor<Self> {
        let (rows, sizes) = (dims(&dy)[0], dims(&w));
        let (dy, w) = (Held::of(dy), Held::of(w));
        let dx = linear::backward_input(profile, dy.get(), w.get(), sizes[0], sizes[1]);
        tensor(dx, &[rows, sizes[0]])
    }

    fn linear_weight(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        profile: Profile,
    ) -> FloatTensor<Self> {
        let (inputs, outputs) = (dims(&x)[1], dims(&dy)[1]);
        let (x, dy) = (Held::of(x), Held::of(dy));
        let dw = linear::backward_weight(profile, x.get(), dy.get(), inputs, outputs);
        tensor(dw, &[inputs, outputs])
    }

    fn add_bias(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        binary(x, bias, elementwise::add_bias)
    }

    fn column_sums(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let shape = dims(&x);
        let width = shape.last().copied().unwrap_or(1);
        let sums = sums::column_sums(Held::of(x).get(), width, pixels(&shape));
        tensor(sums, &[width])
    }

    fn batch_norm_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        running: [FloatTensor<Self>; 2],
        shortcut: Option<FloatTensor<Self>>,
        options: NormOptions,
    ) -> Normalised<FloatTensor<Self>> {
        let shape = dims(&x);
        let channels = shape.last().copied().unwrap_or(1);
        let x = Held::of(x);
        let found = norm::statistics(options.profile, x.get(), channels, pixels(&shape));
        let [keep, rate] = options.moving;
        let moved = |running: FlexTensor, observed: &[f32]| {
            let running = Held::of(running);
            let moved = norm::moved(options.profile, running.get(), keep, observed, rate);
            tensor(moved, &[channels])
        };
        let [mean, variance] = running;
        let (mean, variance) = (moved(mean, &found.mean), moved(variance, &found.variance));
        let scales = [gamma, beta];
        let y = normalised(
            x.again(),
            scales,
            &found.mean,
            &found.variance,
            shortcut,
            options,
        );
        let mut statistics = found.mean;
        statistics.extend(found.variance);
        Normalised {
            y,
            statistics: tensor(statistics, &[2, channels]),
            mean,
            variance,
        }
    }

    fn batch_norm_fixed_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        shortcut: Option<FloatTensor<Self>>,
        options: NormOptions,
    ) -> FloatTensor<Self> {
        let [mean, variance] = mean_and_variance(statistics);
        normalised(x, [gamma, beta], &mean, &variance, shortcut, options)
    }

    fn batch_norm_backward(
        dy: FloatTensor<Self>,
        saved: NormSaved<FloatTensor<Self>>,
        with_shortcut: bool,
        options: NormOptions,
    ) -> NormGradients<FloatTensor<Self>> {
        let shape = dims(&saved.x);
        let [mean, variance] = mean_and_variance(saved.statistics);
        let inverse = norm::inverse_deviation(&variance, options.epsilon);
        let (dy, x, gamma) = (Held::of(dy), Held::of(saved.x), Held::of(saved.gamma));
        let y = saved.rectified.map(Held::of);
        let how = norm::Backward {
            fixed: saved.fixed,
            with_shortcut,
            pixels: pixels(&shape),
        };
        let saved = Saved {
            x: x.get(),
            rectified: y.as_ref().map(Held::get),
            mean: &mean,
            inverse: &inverse,
            gamma: gamma.get(),
        };
        let gradients = norm::backward(options.profile, dy.get(), saved, how);
        NormGradients {
            x: tensor(gradients.x, &shape),
            gamma: tensor(gradients.gamma, &[mean.len()]),
            beta: tensor(gradients.beta, &[mean.len()]),
            shortcut: gradients.shortcut.map(|values| tensor(values, &shape)),
        }
    }

    fn relu_forward(x: FloatTensor<Self>) -> FloatTensor<Self> {
        unary(x, elementwise::relu)
    }

    fn relu_gradient(dy: FloatTensor<Self>, y: FloatTensor<Self>) -> FloatTensor<Self> {
        binary(dy, y, elementwise::relu_backward)
    }

    fn max_pool_forward(x: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self> {
        tensor(pool::max(Held::of(x).get(), &shape), &shape.output_dims())
    }

    fn max_pool_backward(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        shape: PoolShape,
    ) -> FloatTensor<Self> {
        binary(x, dy, |x, dy| pool::max_backward(x, dy, &shape))
    }

    fn average_pool_forward(x: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self> {
        tensor(
            pool::average(Held::of(x).get(), &shape),
            &shape.output_dims(),
        )
    }

    fn average_pool_backward(dy: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self> {
        let dx = pool::average_backward(Held::of(dy).get(), &shape);
        tensor(dx, &shape.input_dims())
    }

    fn shortcut_forward(x: FloatTensor<Self>, shape: ShortcutShape) -> FloatTensor<Self> {
        tensor(
            pool::shortcut(Held::of(x).get(), &shape),
            &shape.output_dims(),
        )
    }

    fn shortcut_backward(dy: FloatTensor<Self>, shape: ShortcutShape) -> FloatTensor<Self> {
        let dx = pool::shortcut_backward(Held::of(dy).get(), &shape);
        tensor(dx, &shape.input_dims())
    }

    fn multiply(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        binary(a, b, elementwise::multiply)
    }

    fn cross_entropy_forward(
        scores: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        profile: Profile,
    ) -> FloatTensor<Self> {
        let classes = dims(&scores)[1];
        let (scores, targets) = (Held::of(scores), Held::of(targets));
        let loss = loss::cross_entropy(profile, scores.get(), targets.get(), classes);
        tensor(vec![loss], &[1])
    }

    fn cross_entropy_backward(
        scores: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        dloss: FloatTensor<Self>,
        profile: Profile,
    ) -> FloatTensor<Self> {
        let classes = dims(&scores)[1];
        let dloss = Held::of(dloss).get().first().copied().unwrap_or(0.0);
        binary(scores, targets, |scores, targets| {
            loss::cross_entropy_backward(profile, scores, targets, classes, dloss)
        })
    }

    fn sgd(
        weights: Vec<FloatTensor<Self>>,
        gradients: Vec<FloatTensor<Self>>,
        velocities: Vec<FloatTensor<Self>>,
        rule: SgdRule,
        profile: Profile,
    ) -> [Vec<FloatTensor<Self>>; 2] {
        let mut velocities = velocities.into_iter().map(Held::of);
        let mut updated = [vec![], vec![]];
        for (w, g) in weights.into_iter().zip(gradients) {
            let (shape, velocity) = (dims(&w), velocities.next());
            let (w, g) = (Held::of(w), Held::of(g));
            let v = velocity.as_ref().map(Held::get);
            let (next, velocity) = updates::sgd(profile, w.get(), g.get(), v, rule);
            updated[0].push(tensor(next, &shape));
            updated[1].extend(velocity.map(|velocity| tensor(velocity, &shape)));
        }
        updated
    }

    fn adam(
        weights: Vec<FloatTensor<Self>>,
        gradients: Vec<FloatTensor<Self>>,
        moments: [Vec<FloatTensor<Self>>; 2],
        rule: AdamRule,
        profile: Profile,
    ) -> [Vec<FloatTensor<Self>>; 3] {
        let [means, squares] = moments.map(|moments| moments.into_iter().map(Held::of));
        let mut updated = [vec![], vec![], vec![]];
        let parameters = weights.into_iter().zip(gradients);
        for ((w, g), (m, v)) in parameters.zip(means.zip(squares)) {
            let shape = dims(&w);
            let (w, g) = (Held::of(w), Held::of(g));
            let next = updates::adam(profile, w.get(), g.get(), [m.get(), v.get()], rule);
            for (updated, next) in updated.iter_mut().zip(next) {
                updated.push(tensor(next, &shape));
            }
        }
        updated
    }
}
