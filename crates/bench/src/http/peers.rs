//! The configurations of the server and of the other proxies.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The pattern of the rule's path. Others beside it match other paths.
pub(super) fn paths(rules: usize) -> Vec<String> {
    let others = (1..rules).map(|nth| format!("/other{nth}/.*"));
    others.chain(["/a/.*".to_owned()]).collect()
}

/// The program that `scripts/setup.sh bench` installed.
pub(super) fn envoy_program() -> Result<PathBuf> {
    let cache = match std::env::var_os("SLUICE_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache/sluice"),
    };
    let program = cache.join("envoy-1.40.0/envoy/_bin/envoy");
    anyhow::ensure!(program.is_file(), "there is no {}: scripts/setup.sh bench", program.display());
    Ok(program)
}

/// Files below `directory/www`.
pub(super) fn nginx(directory: &Path, port: u16, http2_port: u16) -> String {
    let root = directory.display();
    format!(
        "daemon off; worker_processes 1; pid {root}/nginx.pid; error_log {root}/nginx.log; user root;\n\
         events {{ worker_connections 8192; }}\n\
         http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 3600s; sendfile on; tcp_nopush on;\n\
         client_body_temp_path {root}/1; proxy_temp_path {root}/2; fastcgi_temp_path {root}/3;\n\
         uwsgi_temp_path {root}/4; scgi_temp_path {root}/5; open_file_cache max=10;\n\
         server {{ listen 127.0.0.1:{port} backlog=4096; root {root}/www; }}\n\
         server {{ listen 127.0.0.1:{http2_port} http2; root {root}/www; }} }}\n"
    )
}

/// GET of one path, as a proxy.
pub(super) fn nginx_proxy(directory: &Path, port: u16, server: u16) -> String {
    let root = directory.display();
    format!(
        "daemon off; worker_processes 1; pid {root}/nginx-{port}.pid; error_log {root}/nginx.log; user root;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; client_body_temp_path {root}/11; proxy_temp_path {root}/12;\n\
         fastcgi_temp_path {root}/13; uwsgi_temp_path {root}/14; scgi_temp_path {root}/15;\n\
         server {{ listen 127.0.0.1:{port};\n\
         location / {{ return 403; }}\n\
         location ~ ^/a/ {{ limit_except GET {{ deny all; }} proxy_http_version 1.1;\n\
         proxy_pass http://127.0.0.1:{server}; }} }} }}\n"
    )
}

/// One thread, GET of one path.
pub(super) fn haproxy(port: u16, server: u16, http2: bool) -> String {
    let h2 = if http2 { " proto h2" } else { "" };
    format!(
        "global\n  nbthread 1\n  maxconn 2000\n\
         defaults\n  mode http\n  timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n  http-reuse safe\n\
         frontend in\n  bind 127.0.0.1:{port}{h2}\n\
         \x20 http-request deny unless {{ method GET }} {{ path -m reg ^/a/.*$ }}\n  default_backend out\n\
         backend out\n  server one 127.0.0.1:{server}{h2}\n"
    )
}

/// GET of so many paths, as its RBAC filter has them.
pub(super) fn envoy(port: u16, server: u16, rules: usize, http2: bool) -> Value {
    const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.http";
    let policy = |path: &String| {
        json!({
            "permissions": [{"and_rules": {"rules": [
                {"header": {"name": ":method", "string_match": {"exact": "GET"}}},
                {"url_path": {"path": {"safe_regex": {"regex": path}}}},
            ]}}],
            "principals": [{"any": true}],
        })
    };
    let policies: serde_json::Map<String, Value> =
        paths(rules).iter().enumerate().map(|(nth, path)| (nth.to_string(), policy(path))).collect();
    let address = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in", "codec_type": "AUTO", "normalize_path": true, "merge_slashes": true,
        "generate_request_id": false,
        "route_config": {"virtual_hosts": [
            {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "out"}}]},
        ]},
        "http_filters": [
            {"name": "rbac", "typed_config": {
                "@type": format!("{HTTP}.rbac.v3.RBAC"), "rules": {"action": "ALLOW", "policies": policies}}},
            {"name": "router", "typed_config": {"@type": format!("{HTTP}.router.v3.Router")}},
        ],
    });
    let protocol =
        if http2 { json!({"http2_protocol_options": {}}) } else { json!({"http_protocol_options": {}}) };
    json!({
        "static_resources": {
            "listeners": [{"address": address(port), "filter_chains": [{"filters": [
                {"name": "http", "typed_config": manager},
            ]}]}],
            "clusters": [{
                "name": "out", "type": "STATIC", "connect_timeout": "2s",
                "load_assignment": {"cluster_name": "out", "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": address(server)}},
                ]}]},
                "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": protocol,
                }},
            }],
        },
    })
}
