//! Requests of redirected flows between clients and servers that others wrote.

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::Permissions;
    use std::net::SocketAddr;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output};

    use sluice_conformance::node::NodeConfig;
    use sluice_conformance::program::{Server, go_program, run};
    use sluice_conformance::scene::Scene;

    const CLIENT: &str = "shop/client";
    const SERVER: &str = "shop/server";
    /// How curl is told to speak HTTP/2 at once.
    const HTTP2: &str = "--http2-prior-knowledge";

    /// What comes from the client to a port of the server is looked into by these rules.
    fn policy(port: u16, rules: &str) -> String {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: server, namespace: shop}}\nspec:\n  \
             endpointSelector: {{matchLabels: {{app: server}}}}\n  ingress:\n  - fromEndpoints: [{{matchLabels: {{app: \
             client}}}}]\n    toPorts:\n    - ports: [{{port: \"{port}\", protocol: TCP}}]\n      rules: {rules}\n"
        )
    }

    fn scene(manifest: &str) -> Scene {
        let config = NodeConfig { l7: true, ..NodeConfig::default() };
        Scene::new(&config, &[CLIENT, SERVER], manifest).unwrap()
    }

    /// Runs a client where it is looked into.
    fn client(scene: &Scene, program: &Path, arguments: &[&str], input: &[u8]) -> Output {
        run(program, arguments, scene.netns(CLIENT).unwrap(), input).unwrap()
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// What Apache runs as: it does not want to be root.
    const NOBODY: u32 = 65_534;
    const APACHE_MODULES: [&str; 7] =
        ["mpm_event", "authz_core", "dir", "http2", "dav", "dav_fs", "reflector"];

    /// Starts Apache where the server is, for HTTP/1 and HTTP/2 with prior knowledge at port 80. What is put below `/kept`, it
    /// keeps in a directory that is the second of what this returns; what is sent to `/reflect` comes back.
    fn apache(scene: &Scene) -> (Server, PathBuf) {
        let dir = scene.node.dir().join("apache");
        let files = dir.join("files");
        std::fs::create_dir_all(files.join("kept")).unwrap();
        std::fs::set_permissions(scene.node.dir(), Permissions::from_mode(0o711)).unwrap();
        for place in [&files, &files.join("kept")] {
            std::os::unix::fs::chown(place, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        std::fs::write(files.join("index.html"), "hello, world\n").unwrap();
        let modules: String = APACHE_MODULES
            .iter()
            .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
            .collect();
        let config = format!(
            "{modules}ServerName server\nPidFile {dir}/pid\nErrorLog {dir}/error\nUser #{NOBODY}\nGroup #{NOBODY}\nMutex pthread\n\
             Listen 80\nProtocols h2c http/1.1\nDocumentRoot {dir}/files\nDavLockDB {dir}/files/.lock\n<Location /kept>\nDav On\n\
             </Location>\n<Location /reflect>\nSetHandler reflector\n</Location>\n",
            dir = dir.display(),
        );
        std::fs::write(dir.join("conf"), config).unwrap();
        let mut command = Command::new("/usr/sbin/apache2");
        // One process, which ends with this thread.
        command.arg("-X").arg("-d").arg(&dir).arg("-f").arg(dir.join("conf"));
        let places = scene.places(SERVER, 80).unwrap();
        (Server::start(&mut command, scene.netns(SERVER).unwrap(), &places).unwrap(), files)
    }

    /// The status of a request over HTTP/2.
    fn status_http2(scene: &Scene, place: SocketAddr, path: &str) -> String {
        let url = format!("http://{place}{path}");
        let arguments = ["-qsg", "-o", "/dev/null", "-w", "%{http_code}", "-m", "10", HTTP2, &url];
        text(&client(scene, Path::new("curl"), &arguments, b"").stdout)
    }

    /// What a client does wrong in HTTP/2 and HPACK, as h2spec tries it, is answered as the standards say.
    #[test]
    fn every_rule_of_http2() {
        let scene = scene(&policy(80, "{http: [{path: /}]}"));
        let (_server, _) = apache(&scene);
        let place = scene.places(SERVER, 80).unwrap()[0];
        let host = place.ip().to_string();
        let h2spec = go_program("h2spec").unwrap();
        let tried = client(&scene, &h2spec, &["-h", &host, "-p", "80", "-P", "/", "-o", "2", "-S"], b"");
        let report = text(&tried.stdout);
        assert!(report.contains("\n146 tests, 146 passed, 0 skipped, 0 failed\n"), "{report}");
        assert!(tried.status.success());
        assert_eq!(status_http2(&scene, place, "/"), "200");
        assert_eq!(status_http2(&scene, place, "/a"), "403", "all of it was looked into");
    }

    /// What of the gRPC project's interoperability tests needs no encryption and no account.
    const CALLS: [&str; 14] = [
        "empty_unary",
        "large_unary",
        "client_streaming",
        "server_streaming",
        "ping_pong",
        "empty_stream",
        "timeout_on_sleeping_server",
        "cancel_after_begin",
        "cancel_after_first_response",
        "status_code_and_message",
        "special_status_message",
        "custom_metadata",
        "unimplemented_method",
        "unimplemented_service",
    ];
    const GRPC_PORT: u16 = 10_000;

    fn grpc_server(scene: &Scene) -> Server {
        let mut command = Command::new(go_program("grpc-server").unwrap());
        command.arg(format!("--port={GRPC_PORT}"));
        let places = scene.places(SERVER, GRPC_PORT).unwrap();
        Server::start(&mut command, scene.netns(SERVER).unwrap(), &places).unwrap()
    }

    /// Those of the calls that fail, over either address family, with what the client says.
    fn failed_calls(scene: &Scene, program: &Path, calls: &[&str]) -> BTreeMap<String, String> {
        let mut failed = BTreeMap::new();
        for place in scene.places(SERVER, GRPC_PORT).unwrap() {
            for call in calls {
                let server = format!("--server_host={}", place.ip());
                let port = format!("--server_port={GRPC_PORT}");
                let test = format!("--test_case={call}");
                let called = client(scene, program, &[&server, &port, &test], b"");
                if !called.status.success() {
                    // Whole messages may stand in it.
                    let said = text(&called.stderr).chars().take(2_000).collect();
                    failed.insert(format!("{call} {}", place.ip()), said);
                }
            }
        }
        failed
    }

    #[test]
    fn calls_of_grpc() {
        let service = "{serviceName: grpc.testing.TestService}";
        let unimplemented = "{serviceName: grpc.testing.UnimplementedService}";
        let scene = scene(&policy(GRPC_PORT, &format!("{{grpc: [{service}, {unimplemented}]}}")));
        let _server = grpc_server(&scene);
        let program = go_program("grpc-client").unwrap();
        assert_eq!(failed_calls(&scene, &program, &CALLS), BTreeMap::new());

        // All methods but UnaryCall and FullDuplexCall of one service, and none of the other.
        let methods = ["EmptyCall", "StreamingInputCall", "StreamingOutputCall", "UnimplementedCall"]
            .map(|method| format!("{{serviceName: grpc.testing.TestService, methodName: {method}}}"));
        scene.put(&policy(GRPC_PORT, &format!("{{grpc: [{}]}}", methods.join(", ")))).unwrap();
        let allowed = [
            "empty_unary",
            "client_streaming",
            "server_streaming",
            "cancel_after_begin",
            "unimplemented_method",
        ];
        assert_eq!(failed_calls(&scene, &program, &allowed), BTreeMap::new());
        // A call that still sends when it is denied may say so in other words.
        let unary = ["large_unary", "custom_metadata", "empty_stream", "unimplemented_service"];
        let failed = failed_calls(&scene, &program, &unary);
        assert_eq!(failed.len(), 2 * unary.len(), "{failed:#?}");
        for (name, said) in failed {
            assert!(said.contains("PermissionDenied"), "{name}: {said}");
        }
        let streams = ["ping_pong", "cancel_after_first_response"];
        assert_eq!(failed_calls(&scene, &program, &streams).len(), 2 * streams.len());
    }

    /// What one run of curl came to.
    struct Fetched {
        status: String,
        /// What it was told, and said, line by line.
        talk: String,
        body: Vec<u8>,
    }

    /// Runs curl against the server. `protocol` is what it is told to speak.
    fn curl(scene: &Scene, protocol: &str, path: &str, arguments: &[&str], input: &[u8]) -> Fetched {
        let url = format!("http://{}{path}", scene.places(SERVER, 80).unwrap()[0]);
        let written = "%{stderr}status %{http_code}\n";
        let mut all = vec!["-qsgv", protocol, "-m", "60", "-w", written];
        all.extend(arguments);
        all.push(&url);
        let output = client(scene, Path::new("curl"), &all, input);
        let talk = text(&output.stderr);
        let status = talk.lines().find_map(|line| line.strip_prefix("status ")).unwrap_or("none").to_owned();
        Fetched { status, talk, body: output.stdout }
    }

    /// Bodies larger than any buffer, in every way in which curl sends and asks for them.
    #[test]
    fn bodies_of_curl() {
        let rules = "{http: [{method: GET|HEAD|PUT, path: /kept/.*}, {method: POST, path: /reflect}]}";
        let scene = scene(&policy(80, rules));
        let (_server, files) = apache(&scene);
        let large: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_be_bytes).collect();
        let file = scene.node.dir().join("large");
        std::fs::write(&file, &large).unwrap();
        let (file, whole) = (file.to_str().unwrap(), format!("@{}", file.display()));
        for protocol in ["--http1.1", "--http1.0", HTTP2] {
            let fetch =
                |path: &str, arguments: &[&str], input: &[u8]| curl(&scene, protocol, path, arguments, input);
            let kept = format!("/kept/{protocol}");
            let name = files.join(kept.trim_start_matches('/'));
            let put = fetch(&kept, &["-T", file], b"");
            assert_eq!(put.status, "201", "{protocol}: {}", put.talk);
            assert!(std::fs::read(&name).unwrap() == large, "{protocol}: another file");
            let got = fetch(&kept, &[], b"");
            assert_eq!(got.status, "200", "{protocol}: {}", got.talk);
            assert!(got.body == large, "{protocol}: another body");
            let part = fetch(&kept, &["-r", "4000000-4000007"], b"");
            assert_eq!(
                (part.status.as_str(), part.body.as_slice()),
                ("206", &large[4_000_000..4_000_008]),
                "{protocol}"
            );
            let head = fetch(&kept, &["--head"], b"");
            assert_eq!(head.status, "200", "{protocol}: {}", head.talk);
            let length = format!("content-length: {}", large.len());
            assert!(
                text(&head.body).to_ascii_lowercase().contains(&length),
                "{protocol}: {}",
                text(&head.body)
            );
            // The server's reflector does not work with HTTP/2.
            if protocol != HTTP2 {
                let post = fetch("/reflect", &["--data-binary", &whole], b"");
                assert_eq!(post.status, "200", "{protocol}: {}", post.talk);
                assert!(post.body == large, "{protocol}: another body");
            }
            if protocol != "--http1.0" {
                // Of a length that nobody knows beforehand.
                let put = fetch(&kept, &["-T", "-"], &large[1..]);
                assert_eq!(put.status, "204", "{protocol}: {}", put.talk);
                assert!(std::fs::read(&name).unwrap() == large[1..], "{protocol}: another file");
            }
            let denied = fetch("/other", &["-T", file], b"");
            assert_eq!(denied.status, "403", "{protocol}: {}", denied.talk);
            assert!(!files.join("other").exists(), "{protocol}");
            for arguments in [["-X", "DELETE"], ["-d", "all"]] {
                let denied = fetch(&kept, &arguments, b"");
                assert_eq!(
                    (denied.status.as_str(), text(&denied.body).as_str()),
                    ("403", "Access denied\r\n")
                );
            }
        }
    }

    /// A client that waits for leave to go on gets it from the server, or not at all.
    #[test]
    fn curl_that_waits_for_100_continue() {
        let scene = scene(&policy(80, "{http: [{method: PUT, path: /kept/a}]}"));
        let (_server, _) = apache(&scene);
        let waits = ["-H", "Expect: 100-continue", "--expect100-timeout", "30", "-X", "PUT", "-d", "all"];
        for (path, wanted, is_told) in [("/kept/a", "201", true), ("/other", "403", false)] {
            let put = curl(&scene, "--http1.1", path, &waits, b"");
            assert_eq!(
                (put.status.as_str(), put.talk.contains("< HTTP/1.1 100")),
                (wanted, is_told),
                "{}",
                put.talk
            );
        }
    }

    /// Requests that follow each other on one connection. This curl cannot with HTTP/2 and prior knowledge.
    #[test]
    fn a_connection_of_curl() {
        let scene = scene(&policy(80, "{http: [{path: /}]}"));
        let (_server, _) = apache(&scene);
        for place in scene.places(SERVER, 80).unwrap() {
            let (allowed, denied) = (format!("http://{place}/"), format!("http://{place}/a"));
            let mut arguments = vec!["-qsg", "-m", "60", "-w", "%{http_code} %{num_connects}, "];
            for url in [&allowed, &denied, &allowed, &denied, &allowed] {
                arguments.extend(["-o", "/dev/null", url]);
            }
            let output = client(&scene, Path::new("curl"), &arguments, b"");
            assert_eq!(text(&output.stdout), "200 1, 403 0, 200 0, 403 0, 200 0, ", "{place}");
        }
    }

    /// Debian's, which has the library.
    const PYTHON: &str = "/usr/bin/python3";
    const WEBSOCKET_SERVER: &str = "
import asyncio, websockets

async def echo(socket):
    async for message in socket:
        await socket.send(message)

async def main():
    async with websockets.serve(echo, None, 80):
        await asyncio.Future()

asyncio.run(main())
";
    const WEBSOCKET_CLIENT: &str = "
import asyncio, sys, websockets

async def main():
    try:
        async with websockets.connect(sys.argv[1]) as socket:
            for message in ['hello', bytes(100000), 'x' * 1000000]:
                await socket.send(message)
                assert await socket.recv() == message
            await (await socket.ping())
            print('all came back')
    except websockets.InvalidStatusCode as error:
        print(error.status_code)

asyncio.run(main())
";

    #[test]
    fn a_websocket() {
        let scene =
            scene(&policy(80, "{http: [{method: GET, path: /chat, headers: ['Upgrade: websocket']}]}"));
        let mut server = Command::new(PYTHON);
        server.args(["-c", WEBSOCKET_SERVER]);
        let places = scene.places(SERVER, 80).unwrap();
        let _server = Server::start(&mut server, scene.netns(SERVER).unwrap(), &places).unwrap();
        for place in places {
            for (path, wanted) in [("chat", "all came back\n"), ("other", "403\n")] {
                let url = format!("ws://{place}/{path}");
                let talked = client(&scene, Path::new(PYTHON), &["-c", WEBSOCKET_CLIENT, &url], b"");
                assert_eq!(text(&talked.stdout), wanted, "{url}: {}", text(&talked.stderr));
            }
        }
    }
}
