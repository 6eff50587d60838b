//! The one-sample Kolmogorov–Smirnov test, for initial weights that a prover only claims to have
//! drawn (Jia et al., 2021, §5.2).
//!
//! The published test rejects a start if any one layer's p-value is below 0.01, and so many honest
//! ones; [`holm`] keeps the rate of all layers together at the stated level (Holm, 1979).

/// The outcome of a test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ks {
    /// The greatest distance between the empirical and the claimed distribution function.
    pub statistic: f64,
    /// The probability of a statistic as large, if the claim is true.
    pub p: f64,
}

/// Tests, two-sided, whether `sample` was drawn from the distribution with this continuous
/// distribution function. The p-value is that of the limiting distribution with the correction of
/// Stephens (1970), good to about 0.001 from a dozen values on.
pub fn kolmogorov_smirnov(sample: &mut [f64], distribution: impl Fn(f64) -> f64) -> Ks {
    sample.sort_by(f64::total_cmp);
    let n = sample.len() as f64;
    let distances = sample.iter().enumerate().map(|(rank, &x)| {
        let f = distribution(x);
        let (below, above) = (f - rank as f64 / n, (rank + 1) as f64 / n - f);
        below.max(above)
    });
    let statistic = distances.fold(0.0, f64::max);
    let root = n.sqrt();
    Ks {
        statistic,
        p: kolmogorov_tail((root + 0.12 + 0.11 / root) * statistic),
    }
}

/// The distribution function of a normal variable.
pub fn normal(x: f64, mean: f64, deviation: f64) -> f64 {
    0.5 * libm::erfc((mean - x) / (deviation * std::f64::consts::SQRT_2))
}

/// The indices of the hypotheses that are rejected at `level` for all of them together: in ascending
/// order of their p-values, as long as the i-th of m is at most `level / (m − i)`.
pub fn holm(p_values: &[f64], level: f64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let remaining = (1..=p_values.len()).rev();
    (order.into_iter().zip(remaining))
        .take_while(|&(index, remaining)| p_values[index] <= level / remaining as f64)
        .map(|(index, _)| index)
        .collect()
}

/// P(K > λ) of Kolmogorov's distribution, by whichever of its two series converges fast.
fn kolmogorov_tail(lambda: f64) -> f64 {
    use std::f64::consts::PI;
    if lambda <= 0.0 {
        return 1.0;
    }
    if lambda < 1.0 {
        let term = |j: u32| {
            let odd = f64::from(2 * j - 1) * PI / lambda;
            (-odd * odd / 8.0).exp()
        };
        return 1.0 - (2.0 * PI).sqrt() / lambda * (1..=6).map(term).sum::<f64>();
    }
    let term = |j: u32| {
        let sign = if j % 2 == 1 { 2.0 } else { -2.0 };
        let j = f64::from(j) * lambda;
        sign * (-2.0 * j * j).exp()
    };
    (1..=8).map(term).sum::<f64>().clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::tagged;
    use crate::random::{Purpose, Seed};

    /// Values of Kolmogorov's distribution from Smirnov's table (1948), and the series' meeting.
    #[test]
    fn tails_are_those_of_the_tables() {
        for (lambda, tail) in [
            (0.5, 0.963_945),
            (1.0, 0.27),
            (1.36, 0.049_5),
            (1.63, 0.009_8),
        ] {
            assert!((kolmogorov_tail(lambda) - tail).abs() < 5e-4, "{lambda}");
        }
        assert!((kolmogorov_tail(1.0 - 1e-9) - kolmogorov_tail(1.0)).abs() < 1e-7);
    }

    #[test]
    fn another_distribution_is_told_apart() {
        let seed = Seed::from_digest(tagged("ks", &[]));
        let mut stream = seed.stream(Purpose::Weights("w"));
        let mut sample: Vec<f64> = (0..2000).map(|_| 0.1 * stream.normal()).collect();
        let p = |sample: &mut Vec<f64>, deviation| {
            kolmogorov_smirnov(sample, |x| normal(x, 0.0, deviation)).p
        };
        assert!(p(&mut sample, 0.1) > 0.01);
        assert!(p(&mut sample, 0.12) < 1e-3);
        let mut constant = vec![0.0; 50];
        assert!(p(&mut constant, 0.1) < 1e-6);
    }

    #[test]
    fn holm_rejects_in_order_until_one_holds() {
        assert_eq!(holm(&[0.04, 0.001, 0.02, 0.5], 0.05), [1]);
        assert_eq!(holm(&[0.01, 0.001, 0.02, 0.5], 0.05), [1, 0, 2]);
        assert!(holm(&[0.05, 0.05], 0.05).is_empty());
        assert!(holm(&[], 0.05).is_empty());
    }
}
