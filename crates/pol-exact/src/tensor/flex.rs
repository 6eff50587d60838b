//! The kernels on Burn's CPU backend.

use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::TensorMetadata;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, TensorData};
use burn_flex::{FlexTensor, Layout};
use burn_std::Bytes;

use super::backend::{Kernels, NormGradients, NormOptions, forward_only};
use crate::cpu::norm::{self, Saved};
use crate::cpu::{Values, conv, elementwise, linear, loss, pool, recycle, sums};
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

/// Mean, and one over the deviation.
fn mean_and_inverse(statistics: FlexTensor, epsilon: f32) -> (Vec<f32>, Vec<f32>) {
    let statistics = Held::of(statistics);
    let (mean, variance) = statistics.get().split_at(statistics.get().len() / 2);
    (mean.to_vec(), norm::inverse_deviation(variance, epsilon))
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

    fn statistics(x: FloatTensor<Self>, profile: Profile) -> FloatTensor<Self> {
        let shape = dims(&x);
        let channels = shape.last().copied().unwrap_or(1);
        let found = norm::statistics(profile, Held::of(x).get(), channels, pixels(&shape));
        let mut both = found.mean;
        both.extend(found.variance);
        tensor(both, &[2, channels])
    }

    fn batch_norm_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        shortcut: Option<FloatTensor<Self>>,
        options: NormOptions,
    ) -> FloatTensor<Self> {
        let (mean, inverse) = mean_and_inverse(statistics, options.epsilon);
        let (gamma, beta) = (Held::of(gamma), Held::of(beta));
        let shortcut = shortcut.map(Held::of);
        unary(x, |x| {
            norm::normalise(
                options.profile,
                x,
                &mean,
                &inverse,
                gamma.get(),
                beta.get(),
                shortcut.as_ref().map(Held::get),
                options.rectified,
            )
        })
    }

    fn batch_norm_backward(
        dy: FloatTensor<Self>,
        x: FloatTensor<Self>,
        y: Option<FloatTensor<Self>>,
        gamma: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        with_shortcut: bool,
        options: NormOptions,
    ) -> NormGradients<FloatTensor<Self>> {
        let shape = dims(&x);
        let (mean, inverse) = mean_and_inverse(statistics, options.epsilon);
        let (dy, x, gamma) = (Held::of(dy), Held::of(x), Held::of(gamma));
        let y = y.map(Held::of);
        let saved = Saved {
            x: x.get(),
            rectified: y.as_ref().map(Held::get),
            mean: &mean,
            inverse: &inverse,
            gamma: gamma.get(),
        };
        let how = norm::Backward {
            fixed: options.fixed,
            with_shortcut,
            pixels: pixels(&shape),
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

    fn blend(
        a: FloatTensor<Self>,
        ka: f32,
        b: FloatTensor<Self>,
        kb: f32,
        profile: Profile,
    ) -> FloatTensor<Self> {
        binary(a, b, |a, b| elementwise::blend(profile, a, ka, b, kb))
    }

    fn adam_step(
        m: FloatTensor<Self>,
        v: FloatTensor<Self>,
        correction: f32,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        binary(m, v, |m, v| {
            elementwise::adam_step(m, v, correction, epsilon)
        })
    }
}
