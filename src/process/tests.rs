use std::{cell::Cell, fs, fs::File, os::fd::AsRawFd as _};

use tempfile::tempdir;

use super::*;

const LONG: Duration = Duration::from_secs(20);

fn sh(timeout: Duration, script: &str) -> Program {
    Program::new(timeout, ["sh", "-c", script])
}

fn gone(pid: &str) -> bool {
    // A killed orphan may stay a zombie for as long as its new parent likes.
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_program_gets_its_input_and_environment() {
    let script = "cat; printf ' %s %s' \"$GREETING\" \"$0\"; printf 'a remark' >&2";
    let program = sh(LONG, script).stdin("from stdin").env("GREETING", "hello");
    let output = run(&program, &never).unwrap();
    assert_eq!(output, Output { stdout: "from stdin hello sh".to_owned(), stderr: "a remark".to_owned() });
    let inherited = run(&sh(LONG, "printf %s \"$PATH\""), &never).unwrap();
    assert_eq!(inherited.stdout, env::var("PATH").unwrap());
}

#[test]
fn large_input_and_output_pass_at_once() {
    let text = "0123456789".repeat(50_000);
    let output = run(&Program::new(LONG, ["cat"]).stdin(text.clone()), &never).unwrap();
    assert_eq!(output.stdout, text);
    // `true` reads nothing: its end is what counts.
    run(&Program::new(LONG, ["true"]).stdin(text), &never).unwrap();
}

#[test]
fn a_failure_carries_the_code_and_the_last_words() {
    let failure = run(&sh(LONG, "echo no such tag >&2; exit 3"), &never).unwrap_err();
    assert_eq!((failure.code(), failure.stderr()), (Some(3), "no such tag\n"));
    assert!(failure.to_string().ends_with(": exit code 3: no such tag"), "{failure}");
    let failure = run(&sh(LONG, "kill -9 $$"), &never).unwrap_err();
    assert_eq!(failure.code(), None);
    assert!(failure.to_string().ends_with("ended by signal 9"), "{failure}");
}

#[test]
fn what_is_missing_is_named() {
    let failure = run(&Program::new(LONG, ["no-such-program", "x"]), &never).unwrap_err();
    assert!(matches!(failure, Failure::NotFound { .. }), "{failure:?}");
    assert_eq!(failure.to_string(), "no-such-program is not installed, or not on PATH");
    let failure = run(&Program::new(LONG, ["/no/such/program"]), &never).unwrap_err();
    assert_eq!(failure.to_string(), "there is no program /no/such/program");
    let failure = run(&Program::new(LONG, ["/etc/passwd"]), &never).unwrap_err();
    assert!(failure.to_string().contains("denied"), "{failure}");
    assert!(run(&Program::new(LONG, Vec::<String>::new()), &never).is_err());
}

#[test]
fn the_whole_group_dies_at_the_deadline() {
    let dir = tempdir().unwrap();
    let dir = dir.path();
    let pid = dir.join("pid");
    let script = format!("sleep 1000 & echo $! > {}; echo started; wait", pid.display());
    let started = Instant::now();
    let failure = run(&sh(Duration::from_millis(500), &script), &never).unwrap_err();
    assert!(matches!(failure, Failure::TimedOut { .. }), "{failure:?}");
    assert_eq!(failure.stdout(), "started\n");
    assert!(failure.to_string().contains("no answer in 500ms"), "{failure}");
    assert!(started.elapsed() < KILL_GRACE, "TERM alone ends sh and sleep: {:?}", started.elapsed());
    let pid = fs::read_to_string(pid).unwrap();
    wait_for("the grandchild is gone", || gone(pid.trim()));
}

#[test]
fn who_ignores_term_is_killed() {
    let dir = tempdir().unwrap();
    let dir = dir.path();
    let pid = dir.join("pid");
    let script = format!("trap '' TERM; (sleep 1000) & echo $! > {}; sleep 1000", pid.display());
    let calls = Cell::new(0);
    let interrupted = || {
        calls.set(calls.get() + 1);
        pid.exists() && calls.get() > 10
    };
    let started = Instant::now();
    let failure = run(&sh(LONG, &script), &interrupted).unwrap_err();
    assert!(matches!(failure, Failure::Interrupted { .. }), "{failure:?}");
    assert!(started.elapsed() < KILL_GRACE + Duration::from_secs(4), "{:?}", started.elapsed());
    let pid = fs::read_to_string(pid).unwrap();
    wait_for("the grandchild is gone", || gone(pid.trim()));
}

#[test]
fn a_grandchild_that_keeps_the_output_open_delays_nobody() {
    let started = Instant::now();
    let output = run(&sh(LONG, "setsid sleep 5 & echo done"), &never).unwrap();
    assert_eq!(output.stdout, "done\n");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    // Nor when it has left the group that is killed.
    let started = Instant::now();
    run(&sh(Duration::from_millis(200), "setsid sleep 8 & sleep 1000"), &never).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // Nor one that keeps an input open that nobody reads.
    let started = Instant::now();
    let program = sh(LONG, "exec 3<&0; setsid sleep 5 <&3 >/dev/null 2>&1 & echo done").stdin("x".repeat(200_000));
    assert_eq!(run(&program, &never).unwrap().stdout, "done\n");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[test]
fn no_thread_and_no_zombie_is_left() {
    // The threads that a thread starts have its name, and its children are listed apart.
    let name = "leftovers";
    let threads = move || {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|comm| comm.trim() == name).count()
    };
    let run_some = move || {
        for _ in 0..10 {
            run(&sh(LONG, "cat").stdin("x"), &never).unwrap();
            run(&sh(LONG, "exit 3"), &never).unwrap_err();
            run(&sh(Duration::from_millis(20), "sleep 1000"), &never).unwrap_err();
        }
        wait_for("its threads have ended", || threads() == 1);
        assert_eq!(fs::read_to_string("/proc/thread-self/children").unwrap(), "");
    };
    thread::Builder::new().name(name.to_owned()).spawn(run_some).unwrap().join().unwrap();
}

#[test]
fn a_child_keeps_a_file_lock_that_was_made_inheritable() {
    let dir = tempdir().unwrap();
    let dir = dir.path();
    let path = dir.join("lock");
    let lock = File::create(&path).unwrap();
    lock.lock().unwrap();
    rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::empty()).unwrap();
    let number = lock.as_raw_fd();
    let script = format!(
        "touch {0}/started; readlink /proc/self/fd/{number}; while [ ! -e {0}/end ]; do sleep 0.05; done",
        dir.display()
    );
    let child = thread::spawn(move || run(&sh(LONG, &script), &never));
    wait_for("the child runs", || dir.join("started").exists());
    drop(lock);
    assert!(File::open(&path).unwrap().try_lock().is_err(), "the child holds the lock");
    fs::write(dir.join("end"), "").unwrap();
    assert_eq!(child.join().unwrap().unwrap().stdout.trim(), path.to_str().unwrap());
}

#[test]
fn programs_on_path_are_found() {
    assert!(find("sh").unwrap().is_absolute());
    assert_eq!(find("no-such-program"), None);
    assert_eq!(find("/bin/sh"), None, "it is a path already");
}

#[test]
fn of_what_a_person_waits_for_the_end_is_told_and_all_that_it_started_is_ended() {
    assert!(run_attached(&sh(LONG, "exit 0"), &never).is_ok());
    let failure = run_attached(&sh(LONG, "exit 7"), &never).unwrap_err();
    assert_eq!((failure.code(), failure.to_string().ends_with("exit code 7")), (Some(7), true), "{failure}");
    let folder = tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("sleep 1000 & echo $! >{}; wait", file.display());
    let begun = Instant::now();
    let stopped = run_attached(&sh(LONG, &script), &|| fs::read_to_string(&file).is_ok_and(|pid| pid.contains('\n')));
    assert!(matches!(stopped, Err(Failure::Interrupted { .. })), "{stopped:?}");
    let pid = fs::read_to_string(&file).unwrap();
    wait_for("the end of what it started", || gone(pid.trim()));
    assert!(begun.elapsed() < LONG_GRACE, "TERM ends it at once");
    let late = run_attached(&sh(Duration::from_millis(100), "sleep 1000"), &never);
    assert!(matches!(late, Err(Failure::TimedOut { .. })), "{late:?}");
}
