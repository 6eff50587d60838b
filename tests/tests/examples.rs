//! The three ways to embed the recorder run, and each one's proof is verified: every example
//! ends in an error if its verdict is not "accepted".

#[path = "../../crates/pol-core/examples/burn_train.rs"]
mod burn_train_example;
#[path = "../../crates/pol-core/examples/one_call.rs"]
mod one_call;
#[path = "../../crates/pol-core/examples/plain_loop.rs"]
mod plain_loop;

#[test]
fn the_one_call_example_is_accepted() {
    one_call::main().unwrap();
}

#[test]
fn the_plain_loop_example_is_accepted() {
    plain_loop::main().unwrap();
}

#[test]
fn the_burn_train_example_is_accepted() {
    burn_train_example::main().unwrap();
}
