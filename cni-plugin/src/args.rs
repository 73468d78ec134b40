//! `CNI_ARGS`: what the runtime says about the pod.

/// Longest name of a Kubernetes object.
const NAME_LEN_MAX: usize = 253;
/// Longest uid that is passed on.
const UID_LEN_MAX: usize = 64;

/// Which pod it is, as far as the runtime says. A claim: the agent compares it with the Pod it knows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct PodArgs {
    /// `K8S_POD_NAMESPACE`.
    pub(crate) namespace: Option<String>,
    /// `K8S_POD_NAME`.
    pub(crate) name: Option<String>,
    /// `K8S_POD_UID`.
    pub(crate) uid: Option<String>,
}

impl PodArgs {
    /// Reads `KEY=VALUE;KEY=VALUE`. A key twice is refused, an unknown key unless `IgnoreUnknown` is true.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut seen: Vec<(&str, &str)> = Vec::new();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| format!("`{}` is not KEY=VALUE", pair.escape_default()))?;
            if seen.iter().any(|(other, _)| *other == key) {
                return Err(format!("{} is given twice", key.escape_default()));
            }
            seen.push((key, value));
        }
        let ignores_unknown = match seen.iter().find(|(key, _)| *key == "IgnoreUnknown") {
            None => false,
            Some((_, value)) => truth(value)?,
        };
        let mut pod = Self::default();
        for (key, value) in seen {
            match key {
                "IgnoreUnknown" | "K8S_POD_INFRA_CONTAINER_ID" => {}
                "K8S_POD_NAMESPACE" => pod.namespace = name(key, value)?,
                "K8S_POD_NAME" => pod.name = name(key, value)?,
                "K8S_POD_UID" => pod.uid = uid(value)?,
                _ if ignores_unknown => {}
                _ => {
                    return Err(format!("{} is unknown, and IgnoreUnknown is not set", key.escape_default()));
                }
            }
        }
        Ok(pod)
    }
}

fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("IgnoreUnknown is `{}`, neither true nor false", text.escape_default())),
    }
}

fn name(key: &str, text: &str) -> Result<Option<String>, String> {
    let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    if text.len() > NAME_LEN_MAX || !text.bytes().all(is_good) {
        return Err(format!("{key} is not the name of a Kubernetes object"));
    }
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

fn uid(text: &str) -> Result<Option<String>, String> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if text.len() > UID_LEN_MAX || !text.bytes().all(is_good) {
        return Err("K8S_POD_UID is not a uid".to_owned());
    }
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let pod = |namespace: &str, name: &str, uid: &str| {
            let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            Ok(PodArgs { namespace: some(namespace), name: some(name), uid: some(uid) })
        };
        let refused = |reason: &str| Err(reason.to_owned());
        let cases = [
            ("", pod("", "", "")),
            (";;", pod("", "", "")),
            ("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0", pod("shop", "web-0", "")),
            ("K8S_POD_UID=0a-1B;K8S_POD_INFRA_CONTAINER_ID=x", pod("", "", "0a-1B")),
            ("IgnoreUnknown=True;FOO=BAR", pod("", "", "")),
            ("K8S_POD_NAME=", pod("", "", "")),
            ("FOO=BAR", refused("FOO is unknown, and IgnoreUnknown is not set")),
            ("IgnoreUnknown=false;FOO=BAR", refused("FOO is unknown, and IgnoreUnknown is not set")),
            ("IgnoreUnknown=yes", refused("IgnoreUnknown is `yes`, neither true nor false")),
            ("K8S_POD_NAME=a;K8S_POD_NAME=b", refused("K8S_POD_NAME is given twice")),
            ("IgnoreUnknown=1;FOO=a;FOO=a", refused("FOO is given twice")),
            ("K8S_POD_NAME", refused("`K8S_POD_NAME` is not KEY=VALUE")),
            ("=x", refused("`=x` is not KEY=VALUE")),
            ("K8S_POD_NAME=../x", refused("K8S_POD_NAME is not the name of a Kubernetes object")),
            ("K8S_POD_NAMESPACE=A", refused("K8S_POD_NAMESPACE is not the name of a Kubernetes object")),
            ("K8S_POD_UID=a b", refused("K8S_POD_UID is not a uid")),
        ];
        for (text, expected) in cases {
            assert_eq!(PodArgs::parse(text), expected, "{text:?}");
        }
    }
}
