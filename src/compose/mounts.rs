//! What containers are given of the box itself: a release can be started again only while it is there.

use std::{collections::BTreeSet, path::PathBuf};

use yaml_rust2::Yaml;

/// The files and folders that these services mount: bind mounts, and the files of secrets and configs. Both versions of
/// compose print whole paths; what is none is a volume's name.
pub(super) fn mounted(document: &Yaml, services: &[(&str, &Yaml)]) -> BTreeSet<PathBuf> {
    let mut paths = BTreeSet::new();
    for (_, service) in services {
        paths.extend(entries(&service["volumes"]).filter_map(bind_source));
        for kind in ["secrets", "configs"] {
            let names = entries(&service[kind]).filter_map(|entry| entry.as_str().or_else(|| entry["source"].as_str()));
            paths.extend(names.filter_map(|name| document[kind][name]["file"].as_str()));
        }
    }
    paths.into_iter().filter(|path| path.starts_with('/')).map(PathBuf::from).collect()
}

/// `SOURCE:TARGET[:MODE]`, or a table with a `type`.
fn bind_source(volume: &Yaml) -> Option<&str> {
    match volume.as_str() {
        Some(short) => short.split_once(':').map(|(source, _)| source),
        None if volume["type"].as_str() == Some("bind") => volume["source"].as_str(),
        None => None,
    }
}

fn entries(list: &Yaml) -> impl Iterator<Item = &Yaml> {
    list.as_vec().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use yaml_rust2::YamlLoader;

    use super::*;

    fn of(text: &str) -> Vec<String> {
        let document = &YamlLoader::load_from_str(text).unwrap()[0];
        let mounted = mounted(document, &[("app", &document["services"]["app"])]);
        mounted.iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn bind_mounts_of_both_versions_are_found_and_volumes_are_not() {
        let one = "services: {app: {volumes: ['/c/nginx.conf:/etc/nginx.conf:ro', 'data:/data:rw', /cache]}}";
        assert_eq!(of(one), ["/c/nginx.conf"]);
        let two =
            "services: {app: {volumes: [{type: bind, source: /c/app.conf, target: /x}, {type: volume, source: data}]}}";
        assert_eq!(of(two), ["/c/app.conf"]);
        assert!(of("services: {app: {image: x}}").is_empty());
    }

    #[test]
    fn the_files_of_the_secrets_and_configs_in_use_are_found() {
        let text = "services: {app: {secrets: [key], configs: [{source: conf, target: /x}, named]}}\n\
                    secrets: {key: {file: /c/key}, unused: {file: /c/unused}}\n\
                    configs: {conf: {file: /c/conf}, named: {external: true}}";
        assert_eq!(of(text), ["/c/conf", "/c/key"]);
    }
}
