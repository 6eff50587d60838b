//! Exact numerics across devices.

use burn::tensor::Device;
use pol_exact::{Profile, probe};

#[test]
fn every_device_computes_what_the_cpu_does() {
    for profile in Profile::ALL {
        let flex = probe::run(&Device::flex(), profile);
        for (name, backend) in pol_tests::backends() {
            let other = probe::run(&backend, profile);
            for (a, b) in flex.iter().zip(&other) {
                println!("{profile} {name} {} {}", a.operator, a.digest == b.digest);
            }
        }
    }
}
