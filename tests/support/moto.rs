//! moto: AWS's load balancers, as the AWS CLI sees them.

use std::{
    collections::BTreeSet,
    net::TcpStream,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{free_port, process::Process, scope::Scope};

/// A moto server with an account of its own.
#[derive(Debug)]
pub struct Moto {
    port: u16,
    _server: Process,
}

impl Moto {
    pub fn start(scope: &Scope) -> Self {
        let port = free_port();
        let mut command = scope.command("moto_server");
        let mut server = scope.start("moto", command.args(["-H", "127.0.0.1", "-p", &port.to_string()]));
        server.wait_ready(Duration::from_secs(60), || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { port, _server: server }
    }

    /// `AWS_ENDPOINT_URL`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Lets a command's AWS CLI talk to this server, and to nothing else. No region: a target group's name has it.
    pub fn environment(&self, command: &mut Command) {
        command.env("AWS_ENDPOINT_URL", self.url());
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
    }

    /// A target group for `ip` or `instance` targets.
    pub fn target_group(&self, name: &str, target_type: &str) -> TargetGroup {
        let vpcs = self.ec2("DescribeVpcs", &[]);
        let made = self.elbv2(
            "CreateTargetGroup",
            &[
                ("Name", name),
                ("Protocol", "HTTP"),
                ("Port", "80"),
                ("VpcId", &texts(&vpcs, "vpcId")[0]),
                ("TargetType", target_type),
            ],
        );
        TargetGroup { url: self.url(), arn: texts(&made, "TargetGroupArn")[0].clone() }
    }

    /// A classic load balancer. It has no ARN, so its CLI needs a region.
    pub fn load_balancer(&self, name: &str) -> LoadBalancer {
        let listener = "Listeners.member.1";
        let parameters =
            [("Protocol", "HTTP"), ("LoadBalancerPort", "80"), ("InstanceProtocol", "HTTP"), ("InstancePort", "80")]
                .map(|(name, value)| (format!("{listener}.{name}"), value));
        let mut parameters: Vec<(&str, &str)> =
            parameters.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        parameters.extend([("LoadBalancerName", name), ("AvailabilityZones.member.1", "us-east-1a")]);
        call(&self.url(), "elasticloadbalancing", "2012-06-01", "CreateLoadBalancer", &parameters).unwrap();
        LoadBalancer { url: self.url(), name: name.to_owned() }
    }

    /// Starts instances and gives their ids: moto registers only those it knows.
    pub fn instances(&self, count: usize) -> Vec<String> {
        let images = self.ec2("DescribeImages", &[("Owner.1", "amazon")]);
        let count = count.to_string();
        let run = self.ec2(
            "RunInstances",
            &[("ImageId", &texts(&images, "imageId")[0]), ("MinCount", &count), ("MaxCount", &count)],
        );
        texts(&run, "instanceId")
    }

    fn ec2(&self, action: &str, parameters: &[(&str, &str)]) -> String {
        call(&self.url(), "ec2", "2016-11-15", action, parameters).unwrap()
    }

    fn elbv2(&self, action: &str, parameters: &[(&str, &str)]) -> String {
        call(&self.url(), "elasticloadbalancing", "2015-12-01", action, parameters).unwrap()
    }
}

/// A target group. moto tells targets apart by their id alone, so every box needs an address of its own.
#[derive(Debug, Clone)]
pub struct TargetGroup {
    url: String,
    arn: String,
}

impl TargetGroup {
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// The ids of the targets that get requests.
    pub fn registered(&self) -> BTreeSet<String> {
        self.try_registered().unwrap()
    }

    /// Watches the registered targets until it is asked for its samples.
    pub fn sample(&self) -> Sampler {
        Sampler::start(self.clone())
    }

    pub fn deregister(&self, id: &str) {
        self.change("DeregisterTargets", id);
    }

    pub fn register(&self, id: &str) {
        self.change("RegisterTargets", id);
    }

    fn change(&self, action: &str, id: &str) {
        let parameters = [("TargetGroupArn", self.arn.as_str()), ("Targets.member.1.Id", id)];
        call(&self.url, "elasticloadbalancing", "2015-12-01", action, &parameters).unwrap();
    }

    fn try_registered(&self) -> Result<BTreeSet<String>, String> {
        let parameters = [("TargetGroupArn", self.arn.as_str())];
        let answer = call(&self.url, "elasticloadbalancing", "2015-12-01", "DescribeTargetHealth", &parameters)?;
        let members = answer.split("<member>").skip(1);
        let healthy = members.filter(|member| texts(member, "State").first().is_some_and(|state| state == "healthy"));
        Ok(healthy.flat_map(|member| texts(member, "Id")).collect())
    }
}

/// A classic load balancer.
#[derive(Debug, Clone)]
pub struct LoadBalancer {
    url: String,
    name: String,
}

impl LoadBalancer {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The ids of the instances in service.
    pub fn registered(&self) -> BTreeSet<String> {
        let parameters = [("LoadBalancerName", self.name.as_str())];
        let answer = call(&self.url, "elasticloadbalancing", "2012-06-01", "DescribeInstanceHealth", &parameters);
        let answer = answer.unwrap();
        let members = answer.split("<member>").skip(1).filter(|member| texts(member, "State") == ["InService"]);
        members.flat_map(|member| texts(member, "InstanceId")).collect()
    }
}

/// When, since the sampling began, and what was registered then.
type Sample = (Duration, BTreeSet<String>);

/// What a target group looked like, all along.
#[derive(Debug)]
pub struct Sampler {
    started: Instant,
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    fn start(group: TargetGroup) -> Self {
        let (started, samples, stop) = (Instant::now(), Arc::default(), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (samples, stop): (Arc<Mutex<Vec<Sample>>>, _) = (Arc::clone(&samples), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(registered) = group.try_registered() {
                        samples.lock().unwrap().push((started.elapsed(), registered));
                    }
                    thread::sleep(Duration::from_millis(100));
                }
            }
        });
        Self { started, samples, stop, thread: Some(thread) }
    }

    /// The fewest that were registered at once so far.
    pub fn fewest(&self) -> usize {
        let samples = self.samples.lock().unwrap();
        assert!(!samples.is_empty(), "no sample in {:?}", self.started.elapsed());
        samples.iter().map(|(_, registered)| registered.len()).min().unwrap()
    }

    /// Every target that was seen to be missing at some time, of these.
    pub fn ever_missing<'a>(&self, all: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
        let samples = self.samples.lock().unwrap();
        let missing = all.into_iter().filter(|id| samples.iter().any(|(_, registered)| !registered.contains(*id)));
        missing.map(str::to_owned).collect()
    }

    /// Fails the test, showing what happened when, if there were ever fewer registered than this.
    #[track_caller]
    pub fn never_fewer_than(&self, count: usize) {
        assert!(self.fewest() >= count, "fewer than {count} were registered at times:\n{}", self.timeline());
    }

    /// One line for each change.
    pub fn timeline(&self) -> String {
        let mut samples = self.samples.lock().unwrap().clone();
        samples.dedup_by(|later, earlier| later.1 == earlier.1);
        let lines = samples.iter().map(|(at, registered)| format!("{:7.2} s  {registered:?}", at.as_secs_f64()));
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// One call of an AWS query API. moto believes any signature, and finds the service in it.
fn call(url: &str, service: &str, version: &str, action: &str, parameters: &[(&str, &str)]) -> Result<String, String> {
    let credential = format!("Credential=test/20260101/us-east-1/{service}/aws4_request");
    let mut form = vec![("Action", action), ("Version", version)];
    form.extend(parameters);
    let config =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(30))).build();
    let mut answer = ureq::Agent::from(config)
        .post(format!("{url}/"))
        .header("Authorization", format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature=0"))
        .send_form(form)
        .map_err(|err| format!("{action}: {err}"))?;
    let body = answer.body_mut().read_to_string().map_err(|err| format!("{action}: {err}"))?;
    if answer.status().is_success() { Ok(body) } else { Err(format!("{action}: {body}")) }
}

/// The texts of all elements of this name.
fn texts(xml: &str, element: &str) -> Vec<String> {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let parts = xml.split(&open).skip(1);
    parts.filter_map(|part| part.split_once(&close)).map(|(text, _)| text.to_owned()).collect()
}
