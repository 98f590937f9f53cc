//! Rules for the options that say who watches a Redis.

use super::Checker;

/// What a section says of sentinels.
pub(super) struct Said<'a> {
    pub(super) service: &'a Option<String>,
    pub(super) user: &'a Option<String>,
    pub(super) password_env: &'a Option<String>,
    pub(super) password_file: &'a Option<String>,
}

pub(super) fn check(checker: &mut Checker<'_>, section: &str, is_sentinel: bool, said: &Said<'_>) {
    if said.password_env.is_some() && said.password_file.is_some() {
        let message = "sentinel_password_env and sentinel_password_file are both set";
        let remedy = "keep the one that holds the password";
        checker.error(&[section, "sentinel_password_file"], message, remedy);
    }
    if is_sentinel && said.service.is_none() {
        checker.error(
            &[section, "topology"],
            "sentinels watch several services, and none is named",
            "set sentinel_service to the name in `sentinel monitor`, often \"mymaster\"",
        );
    }
    for (option, is_said) in [
        ("sentinel_service", said.service.is_some()),
        ("sentinel_user", said.user.is_some()),
        ("sentinel_password_env", said.password_env.is_some()),
        ("sentinel_password_file", said.password_file.is_some()),
    ] {
        if is_said && !is_sentinel {
            let message = format!("`{option}` has no effect without sentinels");
            checker.error(&[section, option], message, "set topology = \"sentinel\"");
        }
    }
}
