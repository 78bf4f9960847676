//! A real Docker registry.

use std::{net::TcpStream, time::Duration};

use super::{free_port, process::Process, scope::Scope};

/// A registry without authentication on loopback, which Docker trusts without TLS.
#[derive(Debug)]
pub struct Registry {
    scope: Scope,
    port: u16,
    server: Option<Process>,
}

impl Registry {
    pub fn start(scope: &Scope) -> Self {
        let mut registry = Self { scope: scope.clone(), port: free_port(), server: None };
        registry.resume();
        registry
    }

    /// `host:port`, as it stands in front of an image's name.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Down, as a registry that fails.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Up again, with what was pushed before.
    pub fn resume(&mut self) {
        assert!(self.server.is_none(), "the registry runs already");
        let config = self.scope.file(
            "registry.yml",
            &format!(
                "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: \"{}\"}}\n",
                self.scope.subdir("registry").display(),
                self.host(),
            ),
        );
        let mut server = self.scope.start("registry", self.scope.command("docker-registry").arg("serve").arg(config));
        server.wait_ready(Duration::from_secs(15), || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
        self.server = Some(server);
    }
}
