//! moto answers for the instance metadata service too.

use deployctl::metadata::Metadata;

use crate::support::{Moto, Scope, require};

#[test]
fn an_instance_learns_about_itself() {
    require!("moto_server");
    let scope = Scope::new();
    let moto = Moto::start(&scope);
    let metadata = Metadata::new(|name| (name == "AWS_EC2_METADATA_SERVICE_ENDPOINT").then(|| moto.url()));
    assert!(metadata.instance_id().unwrap().starts_with("i-"));
    assert_eq!(metadata.local_ipv4().unwrap(), "127.0.0.1");
    assert_eq!(metadata.region().unwrap(), "us-east-1");
}
