//! Root contexts: one for each plugin configuration in each VM.

use std::cell::RefCell;
use std::rc::Rc;

use super::abi;
use super::plugin::Plugin;
use super::registry;
use crate::config::{Role, Settings};

/// A root context, shared with its streams. Callbacks of one VM never nest, so borrowing it always works;
/// where it would not, the request goes on untouched rather than trapping the VM.
pub type Shared = Rc<RefCell<Root>>;

/// One root context.
pub struct Root {
    id: u32,
    plugin: Option<Plugin>,
}

impl Root {
    /// A root context that is not configured yet.
    pub fn new(id: u32) -> Self {
        Self { id, plugin: None }
    }

    /// Reads the plugin configuration; `false` makes Envoy reject it.
    pub fn configure(&mut self, size: usize) -> bool {
        let configuration = match abi::plugin_configuration(size) {
            Ok(bytes) => bytes,
            Err(status) => {
                log::error!("plugin configuration: cannot be read: {status}");
                return false;
            }
        };
        let settings = match Settings::from_json(&configuration) {
            Ok(settings) => settings,
            Err(error) => {
                log::error!("{error}");
                return false;
            }
        };
        let mut plugin = Plugin::new(self.id, settings);
        if plugin.settings.role == Role::Filter {
            if let Err(status) = plugin.start() {
                log::error!("metrics: cannot be defined: {status}");
                return false;
            }
            registry::enter(self.id, plugin.scopes.data.as_str());
            plugin.enter();
            for warning in &plugin.settings.warnings {
                log::warn!("{warning}");
            }
        }
        self.plugin = Some(plugin);
        true
    }

    /// The configured plugin.
    pub fn plugin(&mut self) -> Option<&mut Plugin> {
        self.plugin.as_mut()
    }

    /// Regular work.
    pub fn tick(&mut self) {
        if let Some(plugin) = &mut self.plugin {
            plugin.on_tick();
        }
    }

    /// The context ends.
    pub fn done(&mut self) {
        registry::leave(self.id);
        if let Some(plugin) = &mut self.plugin {
            plugin.stop();
        }
    }
}
