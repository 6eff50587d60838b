//! Gradients of the operators, in terms of their kernels.

use std::fmt::{self, Debug};

use burn::backend::Autodiff;
use burn::backend::Backend;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use super::backend::{ExactBackend, Kernels, NormOptions, NormSaved, Normalised, statistics_of};
use crate::profile::Profile;
use crate::shape::{ConvShape, PoolShape, ShortcutShape};

type Tracked<B> = FloatTensor<Autodiff<B>>;

/// The gradients of `N` operands, for those of them that are wanted.
type Pull<B, S, const N: usize> = fn(S, FloatTensor<B>, [bool; N]) -> [Option<FloatTensor<B>>; N];

/// An operator with saved values `S` and its backward pass.
struct Operator<B: Backend, S, const N: usize>(Pull<B, S, N>);

impl<B: Backend, S, const N: usize> Debug for Operator<B, S, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("exact operator")
    }
}

impl<B: Backend, S: Clone + Send + Debug + 'static, const N: usize> Backward<B, N>
    for Operator<B, S, N>
{
    type State = S;

    fn backward(self, ops: Ops<S, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<B>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let pulled = self.0(ops.state, dy, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(pulled) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// Records that `output` was computed from `operands`.
fn record<B, C, S, const N: usize>(
    operands: [&Tracked<B>; N],
    output: FloatTensor<B>,
    saved: impl FnOnce() -> S,
    pull: Pull<B, S, N>,
) -> Tracked<B>
where
    B: Backend,
    C: CheckpointStrategy,
    S: Clone + Send + Debug + 'static,
{
    let nodes = operands.map(|operand| operand.node());
    match Operator(pull)
        .prepare::<C>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prepared) => prepared.finish(saved(), output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    }
}

impl<B: Kernels, C: CheckpointStrategy> ExactBackend for Autodiff<B, C> {
    fn exact_conv2d(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        shape: ConvShape,
        profile: Profile,
    ) -> FloatTensor<Self> {
        let (px, pw) = (x.primitive().clone(), w.primitive().clone());
        let y = B::conv2d_forward(px.clone(), pw.clone(), shape, profile);
        record::<B, C, _, 2>(
            [&x, &w],
            y,
            || (px, pw, shape, profile),
            |(x, w, shape, profile), dy, [dx, dw]| {
                [
                    dx.then(|| B::conv2d_input(dy.clone(), w, shape, profile)),
                    dw.then(|| B::conv2d_weight(x, dy, shape, profile)),
                ]
            },
        )
    }

    fn exact_linear(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        profile: Profile,
    ) -> FloatTensor<Self> {
        let (px, pw) = (x.primitive().clone(), w.primitive().clone());
        let y = B::linear_forward(px.clone(), pw.clone(), profile);
        record::<B, C, _, 2>(
            [&x, &w],
            y,
            || (px, pw, profile),
            |(x, w, profile), dy, [dx, dw]| {
                [
                    dx.then(|| B::linear_input(dy.clone(), w, profile)),
                    dw.then(|| B::linear_weight(x, dy, profile)),
                ]
            },
        )
    }

    fn exact_add_bias(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let y = B::add_bias(x.primitive().clone(), bias.primitive().clone());
        record::<B, C, _, 2>(
            [&x, &bias],
            y,
            || (),
            |(), dy, [_, wanted]| [Some(dy.clone()), wanted.then(|| B::column_sums(dy))],
        )
    }

    fn exact_batch_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        running_mean: FloatTensor<Self>,
        running_variance: FloatTensor<Self>,
        shortcut: FloatTensor<Self>,
        options: NormOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let Normalised {
            y,
            statistics,
            mean,
            variance,
        } = B::batch_norm_forward(
            x.primitive().clone(),
            gamma.primitive().clone(),
            beta.primitive().clone(),
            [running_mean, running_variance].map(Tracked::<B>::into_primitive),
            options.adds.then(|| shortcut.primitive().clone()),
            options,
        );
        let operands = [&x, &gamma, &beta, &shortcut];
        let y = normalised::<B, C>(operands, y, statistics, false, options);
        (y, Tracked::<B>::new(mean), Tracked::<B>::new(variance))
    }

    fn exact_batch_norm_fixed(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        shortcut: FloatTensor<Self>,
        options: NormOptions,
    ) -> FloatTensor<Self> {
        let statistics = statistics_of::<B>(mean.into_primitive(), variance.into_primitive());
        let y = B::batch_norm_fixed_forward(
            x.primitive().clone(),
            gamma.primitive().clone(),
            beta.primitive().clone(),
            statistics.clone(),
            options.adds.then(|| shortcut.primitive().clone()),
            options,
        );
        let operands = [&x, &gamma, &beta, &shortcut];
        normalised::<B, C>(operands, y, statistics, true, options)
    }

    fn exact_relu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let y = B::relu_forward(x.primitive().clone());
        let saved = y.clone();
        record::<B, C, _, 1>(
            [&x],
            y,
            || saved,
            |y, dy, _| [Some(B::relu_gradient(dy, y))],
        )
    }

    fn exact_max_pool(x: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self> {
        let saved = x.primitive().clone();
        let y = B::max_pool_forward(saved.clone(), shape);
        record::<B, C, _, 1>(
            [&x],
            y,
            || (saved, shape),
            |(x, shape), dy, _| [Some(B::max_pool_backward(x, dy, shape))],
        )
    }

    fn exact_average_pool(x: FloatTensor<Self>, shape: PoolShape) -> FloatTensor<Self> {
        let y = B::average_pool_forward(x.primitive().clone(), shape);
        record::<B, C, _, 1>(
            [&x],
            y,
            || shape,
            |shape, dy, _| [Some(B::average_pool_backward(dy, shape))],
        )
    }

    fn exact_shortcut(x: FloatTensor<Self>, shape: ShortcutShape) -> FloatTensor<Self> {
        let y = B::shortcut_forward(x.primitive().clone(), shape);
        record::<B, C, _, 1>(
            [&x],
            y,
            || shape,
            |shape, dy, _| [Some(B::shortcut_backward(dy, shape))],
        )
    }

    fn exact_multiply(x: FloatTensor<Self>, mask: FloatTensor<Self>) -> FloatTensor<Self> {
        let mask = mask.into_primitive();
        let y = B::multiply(x.primitive().clone(), mask.clone());
        record::<B, C, _, 1>(
            [&x],
            y,
            || mask,
            |mask, dy, _| [Some(B::multiply(dy, mask))],
        )
    }

    fn exact_cross_entropy(
        scores: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        profile: Profile,
    ) -> FloatTensor<Self> {
        let saved = (
            scores.primitive().clone(),
            targets.into_primitive(),
            profile,
        );
        let loss = B::cross_entropy_forward(saved.0.clone(), saved.1.clone(), profile);
        record::<B, C, _, 1>(
            [&scores],
            loss,
            || saved,
            |(scores, targets, profile), dloss, _| {
                [Some(B::cross_entropy_backward(
                    scores, targets, dloss, profile,
                ))]
            },
        )
    }
}

/// Records a batch normalisation: of `x`, γ, β and, if there is one, the shortcut.
fn normalised<B: Kernels, C: CheckpointStrategy>(
    [x, gamma, beta, shortcut]: [&Tracked<B>; 4],
    y: FloatTensor<B>,
    statistics: FloatTensor<B>,
    fixed: bool,
    options: NormOptions,
) -> Tracked<B> {
    let saved = NormSaved {
        x: x.primitive().clone(),
        rectified: options.rectified.then(|| y.clone()),
        gamma: gamma.primitive().clone(),
        statistics,
        fixed,
    };
    let saved = || (saved, options);
    match options.adds {
        false => record::<B, C, _, 3>([x, gamma, beta], y, saved, |(saved, options), dy, _| {
            let d = B::batch_norm_backward(dy, saved, false, options);
            [Some(d.x), Some(d.gamma), Some(d.beta)]
        }),
        true => record::<B, C, _, 4>(
            [x, gamma, beta, shortcut],
            y,
            saved,
            |(saved, options), dy, [.., wanted]| {
                let d = B::batch_norm_backward(dy, saved, wanted, options);
                [Some(d.x), Some(d.gamma), Some(d.beta), d.shortcut]
            },
        ),
    }
}
