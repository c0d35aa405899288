#!/usr/bin/env python3
"""Runs the program confined as a container of deploy/ is, and gives it work.

    pip install --target DIR -r scripts/requirements-confined.txt
    PYTHONPATH=DIR python3 scripts/check_confined.py target/debug/tower-kernels

It gets another user than root, no capabilities, no way to gain privileges, a file system that it can only read, process
and IPC namespaces of its own, and a seccomp filter that refuses what Docker's default profile refuses. That the
confinement is in force is checked first, with programs that it must keep from what they do. Needs bubblewrap, libseccomp
and user namespaces.
"""

import errno
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import pyseccomp as seccomp

USER = 65532
PATIENCE = 60
# What Docker's default profile does not allow to a container without capabilities, after the list in its documentation.
REFUSED = """acct add_key bpf clock_adjtime clock_settime create_module delete_module finit_module fsconfig fsmount fsopen
fspick get_kernel_syms init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load
kexec_load keyctl lookup_dcookie mount mount_setattr move_mount nfsservctl open_by_handle_at open_tree perf_event_open
pivot_root process_vm_readv process_vm_writev ptrace query_module quotactl quotactl_fd reboot request_key set_mempolicy
mbind move_pages migrate_pages setns settimeofday stime swapoff swapon _sysctl sysfs umount umount2 unshare uselib
userfaultfd ustat vhangup vm86 vm86old""".split()
# The flags of clone that make a namespace: mount, cgroup, UTS, IPC, user, PID, network.
NEW_NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)


def check(holds, *what):
    if not holds:
        raise SystemExit("confined: " + " ".join(map(str, what)))


def seccomp_filter():
    """The program of the filter, in a file that the confined process inherits."""
    rules = seccomp.SyscallFilter(seccomp.ALLOW)
    for name in REFUSED:
        try:
            rules.add_rule(seccomp.ERRNO(errno.EPERM), name)
        except (ValueError, OSError, RuntimeError):
            # Not a system call of this architecture, or younger than this libseccomp.
            print(f"confined: the filter does not know {name}")
    # No new namespaces. The flags of clone3 are in memory, where a filter cannot look: without it clone is used.
    for flag in NEW_NAMESPACES:
        rules.add_rule(seccomp.ERRNO(errno.EPERM), "clone", seccomp.Arg(0, seccomp.MASKED_EQ, flag, flag))
    rules.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")
    file = tempfile.TemporaryFile()
    rules.export_bpf(file)
    file.seek(0)
    return file


def confined(command, **options):
    """Starts a command within."""
    rules = seccomp_filter()
    os.set_inheritable(rules.fileno(), True)
    drop = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--bounding-set=-all", "--no-new-privs"]
    walls = ["bwrap", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--unshare-pid", "--unshare-ipc"]
    walls += ["--unshare-uts", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--chdir", "/"]
    walls += ["--seccomp", str(rules.fileno()), "--"]
    # Who is not root already is not to become somebody else.
    prefix = drop if os.geteuid() == 0 else []
    return subprocess.Popen(prefix + walls + command, pass_fds=[rules.fileno()], text=True, **options)


def output(*command):
    done = confined(list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text, _ = done.communicate(timeout=PATIENCE)
    return done.returncode, text


def check_walls():
    """What has to fail does, and for the right reason."""
    code, text = output("cat", "/proc/self/status")
    check(code == 0, "nothing can be run here:", text)
    status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    check(status["Seccomp"].strip() == "2" and status["NoNewPrivs"].strip() == "1", text)
    check("0" not in status["Uid"].split(), "it is root:", status["Uid"])
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        check(int(status[capabilities], 16) == 0, capabilities, status[capabilities])
    for path in ("/confined", "/tmp/confined", "/var/tmp/confined"):
        code, text = output("touch", path)
        check(code != 0 and ("Read-only file system" in text or "Permission denied" in text), "touch", path, code, text)
    for command in (["unshare", "--user", "true"], ["unshare", "--mount", "true"]):
        code, text = output(*command)
        check(code != 0 and "not permitted" in text, command, code, text)


def ask(address, path, body=None):
    request = urllib.request.Request(address + path, body and json.dumps(body).encode())
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return answer.status, answer.read().decode()


def certificate(folder):
    """A certificate for the program to read, as pods have one from a secret."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost".split()
    paths = ["-keyout", f"{folder}/tls.key", "-out", f"{folder}/tls.crt"]
    subprocess.run(command + paths, check=True, capture_output=True)
    os.chmod(f"{folder}/tls.key", 0o644)


def check_program(program, flags, scheme, work):
    """Starts, works, and ends as it should."""
    listen = ["--rest-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0", "--drain-notice=100ms"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    server = confined([str(program), "serve", *listen, *flags], **pipes)
    log = []
    threading.Thread(target=lambda: log.extend(server.stderr), daemon=True).start()
    lines = []
    threading.Thread(target=lambda: lines.extend(iter(server.stdout.readline, "")), daemon=True).start()
    try:
        begun = time.monotonic()
        while not any("Try it" in line for line in lines):
            check(server.poll() is None, "the program ended with", server.returncode, "".join(log))
            check(time.monotonic() - begun < PATIENCE, "the program does not start:", "".join(log))
            time.sleep(0.05)
        (address,) = re.findall(rf"REST +({scheme}://\S+)", "".join(lines))
        work(address)
        # bubblewrap is the parent, and passes no signal on: the program is its grandchild, the child of its init.
        (program_pid,) = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and is_program(int(pid), server.pid)]
        os.kill(program_pid, 15)
        check(server.wait(PATIENCE) == 0, "on SIGTERM the program ended with", server.returncode, "".join(log))
    finally:
        server.kill()
        server.wait()
    check(not [line for line in log if " ERROR " in line], "the log has errors:", "".join(log))


def is_program(pid, ancestor):
    """Whether it is the server below this process."""
    try:
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if len(words) < 2 or words[1] != b"serve":
            return False
        while pid > 1 and pid != ancestor:
            pid = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return pid == ancestor
    except OSError:
        return False


def calls(address):
    check(ask(address, "/health/ready")[0] == 200, "it is not ready")
    saxpy = {"kernel_id": "linalg/saxpy", "input": {"a": 2.0, "x": [1.0], "y": [1.0]}}
    status, text = ask(address, "/execute", saxpy)
    check(status == 200 and json.loads(text)["output"] == {"y": [3.0]}, status, text)
    # Large enough for threads and for huge pages.
    many = {"kernel_id": "linalg/saxpy", "input": {"a": 2.0, "x": [1.0] * 300_000, "y": [1.0] * 300_000}}
    check(ask(address, "/execute", many)[0] == 200, "saxpy of 300 000")
    nodes = 500
    cycle = {"num_nodes": nodes, "edges": [[node, (node + 1) % nodes] for node in range(nodes)]}
    check(ask(address, "/execute", {"kernel_id": "graph/betweenness-centrality", "input": cycle})[0] == 200, "betweenness")
    check("kernel_requests_total" in ask(address, "/metrics")[1], "there is no /metrics")


def main(program):
    for tool in ("bwrap", "setpriv", "openssl"):
        check(shutil.which(tool), tool, "is not installed")
    check_walls()
    print("another user, no capabilities, nothing to write to, and a filter of system calls: all in force")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        # Where the other user can read it, wherever the repository is.
        copy = pathlib.Path(folder, "tower-kernels")
        shutil.copy(program, copy)
        copy.chmod(0o755)
        check_program(copy, [], "http", calls)
        certificate(folder)
        check_program(copy, [f"--tls-cert={folder}/tls.crt", f"--tls-key={folder}/tls.key"], "https", lambda _: None)
    print("the program starts, works and drains so, with TLS as well")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]).resolve())
