//! A real Prometheus, with metrics that a test sets.

use std::{fs, path::PathBuf, time::Duration};

use super::{Http, Process, Scope, free_port, wait_for};

/// A server that scrapes one page of metrics, once a second.
#[derive(Debug)]
pub struct Prometheus {
    url: String,
    metrics: PathBuf,
    _site: Process,
    _server: Process,
}

impl Prometheus {
    pub fn start(scope: &Scope) -> Self {
        let (site_port, port) = (free_port(), free_port());
        let metrics = scope.file("metrics/metrics", "");
        let mut site = scope.command("busybox");
        site.args(["httpd", "-f", "-p", &format!("127.0.0.1:{site_port}"), "-h"]).arg(metrics.parent().unwrap());
        let site = scope.start("metrics", &mut site);
        let config = scope.file(
            "prometheus.yml",
            &format!(
                "global: {{scrape_interval: 1s}}\n\
                 scrape_configs: [{{job_name: app, static_configs: [{{targets: ['127.0.0.1:{site_port}']}}]}}]\n"
            ),
        );
        let mut command = scope.command("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", scope.subdir("prometheus").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut server = scope.start("prometheus", &mut command);
        let url = format!("http://127.0.0.1:{port}");
        let http = Http::new(&url);
        server.wait_ready(Duration::from_secs(30), || matches!(http.try_get("/-/ready"), Ok((200, _))));
        Self { url, metrics, _site: site, _server: server }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sets the one metric that there is, and waits until a query tells it.
    #[track_caller]
    pub fn set(&self, metric: &str, value: f64) {
        self.page(&[(metric, value)]);
        wait_for(Duration::from_secs(20), &format!("Prometheus knows {metric} {value}"), || {
            let (_, answer) = Http::new(&self.url).get(&format!("/api/v1/query?query={metric}"));
            let seen = &answer["data"]["result"][0]["value"][1];
            if seen.as_str().and_then(|text| text.parse().ok()) == Some(value) {
                Ok(())
            } else {
                Err(answer.to_string())
            }
        });
    }

    /// Sets all metrics that there are, without waiting.
    pub fn page(&self, metrics: &[(&str, f64)]) {
        // In one step: a scrape must not see half a page.
        let next = self.metrics.with_extension("next");
        let lines: Vec<String> = metrics.iter().map(|(metric, value)| format!("{metric} {value}")).collect();
        fs::write(&next, lines.join("\n") + "\n").unwrap();
        fs::rename(&next, &self.metrics).unwrap();
    }
}
