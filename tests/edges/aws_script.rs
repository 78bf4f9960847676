//! An AWS that answers the real CLI by a script, for what moto does not model: throttling, draining, slow health checks.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

type Calls = Arc<Mutex<Vec<(String, Instant)>>>;

/// A server that gives each action's answers in order, the last one for ever.
pub struct Script {
    url: String,
    calls: Calls,
}

impl Script {
    /// Each answer is a state and its reason (`-` for none), `ok`, or the code of an error.
    pub fn start(answers: &[(&str, &[&str])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Calls::default();
        let mut left: HashMap<String, Vec<String>> = answers
            .iter()
            .map(|(action, answers)| ((*action).to_owned(), answers.iter().rev().map(|s| (*s).to_owned()).collect()))
            .collect();
        thread::spawn({
            let calls = Arc::clone(&calls);
            move || {
                for stream in listener.incoming().flatten() {
                    let Some((action, form)) = action_of(&stream) else { continue };
                    let queue = left.get_mut(&action).unwrap_or_else(|| panic!("{action} is not in the script"));
                    let answer = if queue.len() > 1 { queue.pop().unwrap() } else { queue[0].clone() };
                    calls.lock().unwrap().push((action.clone(), Instant::now()));
                    respond(stream, &action, &answer, &form);
                }
            }
        });
        Self { url, calls }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The actions that were called, and the seconds between each and the one before.
    pub fn calls(&self) -> Vec<(String, f64)> {
        let calls = self.calls.lock().unwrap();
        let mut before = calls.first().map(|(_, at)| *at);
        calls.iter().map(|(action, at)| (action.clone(), (*at - before.replace(*at).unwrap()).as_secs_f64())).collect()
    }
}

fn action_of(stream: &TcpStream) -> Option<(String, String)> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let form = String::from_utf8(body).ok()?;
    Some((parameter(&form, "Action")?, form))
}

fn parameter(form: &str, name: &str) -> Option<String> {
    form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
}

fn respond(mut stream: TcpStream, action: &str, answer: &str, form: &str) {
    let (status, body) = match answer.split_once(' ') {
        None if answer == "ok" => ("200 OK", wrapped(action, "")),
        None => ("400 Bad Request", error(answer)),
        Some((state, reason)) => ("200 OK", wrapped(action, &health(state, reason, form))),
    };
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
}

fn wrapped(action: &str, result: &str) -> String {
    format!("<{action}Response><{action}Result>{result}</{action}Result></{action}Response>")
}

fn error(code: &str) -> String {
    format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>Rate exceeded</Message></Error></ErrorResponse>"
    )
}

fn health(state: &str, reason: &str, form: &str) -> String {
    let id = parameter(form, "Targets.member.1.Id").unwrap_or_default();
    let port = parameter(form, "Targets.member.1.Port").unwrap_or_default();
    let reason = if reason == "-" { String::new() } else { format!("<Reason>{reason}</Reason>") };
    format!(
        "<TargetHealthDescriptions><member><Target><Id>{id}</Id><Port>{port}</Port></Target>\
         <TargetHealth><State>{state}</State>{reason}</TargetHealth></member></TargetHealthDescriptions>"
    )
}
