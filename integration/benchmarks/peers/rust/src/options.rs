use std::collections::HashMap;

pub enum Task {
    Save,
    Read,
    Replay,
    Checksum,
}

pub struct Given {
    pub task: Task,
    pub dir: String,
    pub data: String,
    pub size: usize,
    pub batch: usize,
    pub count: usize,
    pub sync: bool,
    pub threads: usize,
    pub seconds: f64,
}

impl Given {
    /// As the Go programs take them: `--name=value` each.
    pub fn from_arguments() -> Result<Given, String> {
        let mut values = HashMap::new();
        for argument in std::env::args().skip(1) {
            let (name, value) = argument
                .strip_prefix("--")
                .and_then(|rest| rest.split_once('='))
                .ok_or(format!("{argument:?} is not --name=value"))?;
            values.insert(name.to_string(), value.to_string());
        }
        let text = |name: &str| values.get(name).cloned().unwrap_or_default();
        let number = |name: &str, otherwise: usize| -> Result<usize, String> {
            match values.get(name) {
                None => Ok(otherwise),
                Some(value) => value.parse().map_err(|error| format!("{name}: {error}")),
            }
        };
        Ok(Given {
            task: match text("do").as_str() {
                "save" => Task::Save,
                "read" => Task::Read,
                "replay" => Task::Replay,
                "checksum" => Task::Checksum,
                other => return Err(format!("{other:?} is nothing to do")),
            },
            dir: text("dir"),
            data: text("data"),
            size: number("size", 128)?,
            batch: number("batch", 1)?,
            count: number("count", 1)?,
            sync: text("sync") != "false",
            threads: number("threads", 1)?,
            seconds: match values.get("seconds") {
                None => 60.0,
                Some(value) => value.parse().map_err(|error| format!("seconds: {error}"))?,
            },
        })
    }
}
