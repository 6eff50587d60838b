//! Updates of parameters (NUMERICS.md, "Updates").

use rayon::prelude::*;

use super::buffers::{Values, any};
use crate::math::plus_product;
use crate::optim::{AdamRule, Momentum, SgdRule};
use crate::profile::Profile;
use crate::simd::vectorised;

/// Values that one task updates.
const TASK: usize = 1 << 14;

/// The next weights and velocities, from the weights, their gradients and the last velocities. Without
/// momentum there are none.
pub fn sgd(
    profile: Profile,
    w: &[f32],
    g: &[f32],
    v: Option<&[f32]>,
    rule: SgdRule,
) -> (Values, Option<Values>) {
    let kept = rule.momentum.is_some();
    let mut updated = [any(w.len()), any(if kept { w.len() } else { 0 })];
    let [next, velocity] = &mut updated;
    if kept {
        let tasks = next.par_chunks_mut(TASK).zip(velocity.par_chunks_mut(TASK));
        tasks.enumerate().for_each(|(task, (next, velocity))| {
            let part = task * TASK..task * TASK + next.len();
            let (w, g, v) = (&w[part.clone()], &g[part.clone()], v.map(|v| &v[part]));
            match profile.fused() {
                true => sgd_fused(next, velocity, w, g, v, rule),
                false => sgd_unfused(next, velocity, w, g, v, rule),
            }
        });
    } else {
        let tasks = next.par_chunks_mut(TASK).zip(w.par_chunks(TASK));
        (tasks.zip(g.par_chunks(TASK))).for_each(|((next, w), g)| match profile.fused() {
            true => plain_fused(next, w, g, rule),
            false => plain_unfused(next, w, g, rule),
        });
    }
    let [next, velocity] = updated;
    (next, kept.then_some(velocity))
}

/// The next weights and moments, from the weights, their gradients and the last moments.
pub fn adam(
    profile: Profile,
    w: &[f32],
    g: &[f32],
    moments: [&[f32]; 2],
    rule: AdamRule,
) -> [Values; 3] {
    let mut updated = [(); 3].map(|()| any(w.len()));
    let [next, m, v] = &mut updated;
    let tasks = (next.par_chunks_mut(TASK)).zip(m.par_chunks_mut(TASK).zip(v.par_chunks_mut(TASK)));
    tasks.enumerate().for_each(|(task, (next, (m, v)))| {
        let part = task * TASK..task * TASK + next.len();
        let (w, g) = (&w[part.clone()], &g[part.clone()]);
        let moments = moments.map(|moment| &moment[part.clone()]);
        match profile.fused() {
            true => adam_fused([next, m, v], w, g, moments, rule),
            false => adam_unfused([next, m, v], w, g, moments, rule),
        }
    });
    updated
}

/// `a·ka ⊕ b·kb`: the first product is rounded, the second enters the sum.
#[inline(always)]
fn blend<const FUSED: bool>(a: f32, ka: f32, b: f32, kb: f32) -> f32 {
    plus_product::<FUSED>(a * ka, b, kb)
}

/// The gradient with its decay.
#[inline(always)]
fn decayed<const FUSED: bool>(g: f32, w: f32, decay: Option<f32>) -> f32 {
    match decay {
        None => g,
        Some(decay) => blend::<FUSED>(g, 1.0, w, decay),
    }
}

#[inline(always)]
fn plain_part<const FUSED: bool>(next: &mut [f32], w: &[f32], g: &[f32], rule: SgdRule) {
    for ((next, w), g) in next.iter_mut().zip(w).zip(g) {
        let step = decayed::<FUSED>(*g, *w, rule.decay);
        *next = blend::<FUSED>(*w, 1.0, step, -rule.rate);
    }
}

#[inline(always)]
fn sgd_part<const FUSED: bool>(
    next: &mut [f32],
    velocity: &mut [f32],
    w: &[f32],
    g: &[f32],
    v: Option<&[f32]>,
    rule: SgdRule,
) {
    let Some(Momentum {
        kept,
        undamped,
        nesterov,
    }) = rule.momentum
    else {
        return;
    };
    // The first velocity is the gradient, undamped.
    match v {
        None => {
            for ((velocity, w), g) in velocity.iter_mut().zip(w).zip(g) {
                *velocity = decayed::<FUSED>(*g, *w, rule.decay);
            }
        }
        Some(v) => {
            for (((velocity, w), g), v) in velocity.iter_mut().zip(w).zip(g).zip(v) {
                let step = decayed::<FUSED>(*g, *w, rule.decay);
                *velocity = blend::<FUSED>(step, undamped, *v, kept);
            }
        }
    }
    if nesterov {
        for (((next, w), g), velocity) in next.iter_mut().zip(w).zip(g).zip(velocity) {
            let step = decayed::<FUSED>(*g, *w, rule.decay);
            let step = blend::<FUSED>(step, 1.0, *velocity, kept);
            *next = blend::<FUSED>(*w, 1.0, step, -rule.rate);
        }
    } else {
        for ((next, w), velocity) in next.iter_mut().zip(w).zip(velocity) {
            *next = blend::<FUSED>(*w, 1.0, *velocity, -rule.rate);
        }
    }
}

#[inline(always)]
fn adam_part<const FUSED: bool>(
    [next, m, v]: [&mut [f32]; 3],
    w: &[f32],
    g: &[f32],
    [last_m, last_v]: [&[f32]; 2],
    rule: AdamRule,
) {
    let moments = (m.iter_mut().zip(last_m)).zip(v.iter_mut().zip(last_v));
    let values = next.iter_mut().zip(w).zip(g);
    for (((next, w), g), ((m, last_m), (v, last_v))) in values.zip(moments) {
        let g = decayed::<FUSED>(*g, *w, rule.coupled_decay);
        *m = blend::<FUSED>(*last_m, rule.beta1, g, rule.rest1);
        *v = blend::<FUSED>(*last_v, rule.beta2, g * g, rule.rest2);
        let step = *m * rule.correction / (v.sqrt() + rule.epsilon);
        *next = blend::<FUSED>(*w, rule.kept, step, -rule.rate);
    }
}

vectorised! {
    fn plain_unfused(next: &mut [f32], w: &[f32], g: &[f32], rule: SgdRule) {
        plain_part::<false>(next, w, g, rule);
    }
}

vectorised! {
    fn plain_fused(next: &mut [f32], w: &[f32], g: &[f32], rule: SgdRule) {
        plain_part::<true>(next, w, g, rule);
    }
}

vectorised! {
    fn sgd_unfused(next: &mut [f32], velocity: &mut [f32], w: &[f32], g: &[f32], v: Option<&[f32]>, rule: SgdRule) {
        sgd_part::<false>(next, velocity, w, g, v, rule);
    }
}

vectorised! {
    fn sgd_fused(next: &mut [f32], velocity: &mut [f32], w: &[f32], g: &[f32], v: Option<&[f32]>, rule: SgdRule) {
        sgd_part::<true>(next, velocity, w, g, v, rule);
    }
}

vectorised! {
    fn adam_unfused(next: [&mut [f32]; 3], w: &[f32], g: &[f32], moments: [&[f32]; 2], rule: AdamRule) {
        adam_part::<false>(next, w, g, moments, rule);
    }
}

vectorised! {
    fn adam_fused(next: [&mut [f32]; 3], w: &[f32], g: &[f32], moments: [&[f32]; 2], rule: AdamRule) {
        adam_part::<true>(next, w, g, moments, rule);
    }
}
