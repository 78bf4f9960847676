"""What moto lacks of AWS, for `make machines`: EC2's metadata service, and an API that hears lifecycle hooks' answers.

cloud.py DIR CERTIFICATE KEY; DIR/IP holds a machine's instance id, DIR/IP.state the state that its auto-scaling group
wants, and DIR/hooks gets each answer, one a line.
"""

import http.server
import json
import pathlib
import ssl
import sys
import threading

folder, certificate, key = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
CREDENTIALS = {
    "Code": "Success",
    "LastUpdated": "2020-01-01T00:00:00Z",
    "Type": "AWS-HMAC",
    "AccessKeyId": "AKIAMACHINES",
    "SecretAccessKey": "x",
    "Token": "x",
    "Expiration": "2099-01-01T00:00:00Z",
}


class Handler(http.server.BaseHTTPRequestHandler):
    def say(self, text, code=200):
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Metadata(Handler):
    def do_PUT(self):
        self.say("TOKEN")

    def do_GET(self):
        if self.headers.get("X-aws-ec2-metadata-token") != "TOKEN":
            return self.say("", 401)

        def known(name, default=""):
            path = folder / name
            return path.read_text().strip() if path.exists() else default

        ip = self.client_address[0]
        answer = {
            "instance-id": known(ip),
            "local-ipv4": ip,
            "placement/region": "eu-west-1",
            "placement/availability-zone": "eu-west-1a",
            "autoscaling/target-lifecycle-state": known(ip + ".state", "InService"),
            "iam/security-credentials": "boxes",
            "iam/security-credentials/boxes": json.dumps(CREDENTIALS),
        }.get(self.path.removeprefix("/latest/meta-data/").rstrip("/"))
        self.say(answer or "", 200 if answer else 404)


class Hooks(Handler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with open(folder / "hooks", "a") as file:
            file.write(f"{self.client_address[0]} {body}\n")
        name = "CompleteLifecycleAction"
        self.say(
            f'<{name}Response xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/"><{name}Result/>'
            f"<ResponseMetadata><RequestId>x</RequestId></ResponseMetadata></{name}Response>"
        )


hooks = http.server.ThreadingHTTPServer(("10.77.0.3", 443), Hooks)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
hooks.socket = context.wrap_socket(hooks.socket, server_side=True)
threading.Thread(target=hooks.serve_forever, daemon=True).start()
http.server.ThreadingHTTPServer(("169.254.169.254", 80), Metadata).serve_forever()
