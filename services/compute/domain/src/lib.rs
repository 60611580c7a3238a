//! The decisions of Gureum's compute service: pure.
//!
//! - [`instance`] is the record with its states; [`start`], [`stop`], [`terminate`], [`reboot`] and
//!   [`modify`] are what a user may ask of it, [`mod@batch`] asks it of several at once.
//! - [`launch_spec`], [`launch`], [`launch_check`] and [`launch_intent`] are RunInstances from the words of a
//!   request to its records; [`launch_template`] keeps such words.
//! - [`observe`] is what follows from a node's report, [`mod@plan`] what the reconciler does next.
//! - [`placement`] says where an instance goes, [`node`] what is known of the hosts, [`status_check`] how
//!   an instance is doing, [`mod@runtime`] how it runs, [`console`] what it last wrote.
//! - [`instance_type`], [`image`], [`marketplace`], [`volume`], [`snapshot`] and [`block_device`] are what
//!   instances are made of.

pub mod batch;
pub mod block_device;
mod bytes;
pub mod console;
pub mod disk_work;
pub mod image;
pub mod instance;
pub mod instance_filter;
pub mod instance_type;
pub mod launch;
pub mod launch_check;
pub mod launch_intent;
pub mod launch_spec;
pub mod launch_template;
pub mod marketplace;
pub mod metadata_options;
pub mod modify;
pub mod node;
pub mod observe;
pub mod placement;
pub mod plan;
pub mod reboot;
pub mod runtime;
pub mod snapshot;
pub mod start;
pub mod status_check;
pub mod stop;
pub mod tag_specification;
pub mod terminate;
pub mod upload;
pub mod user_data;
pub mod volume;
