//! The rules of a switch, by which whatever an instance sends arrives at the shim's sockets (`nf_tables`; the numbers are
//! those of Linux's `nf_tables.h`).

use super::netlink::{APPEND, CREATE, Message};

const RULES: &str = "gureum";
const CHAIN: &str = "divert";
const IPV4: u8 = 2;

/// The rules of the switch: TCP and UDP go to the sockets on this port; nothing else has anybody who would take it.
pub fn divert(port: u16) -> Vec<Message> {
    const OF_TABLES: u16 = 10 << 8;
    const NEW_TABLE: u16 = OF_TABLES;
    const NEW_CHAIN: u16 = OF_TABLES | 3;
    const BEGIN: u16 = 16;
    const END: u16 = 17;
    const HOOK: u16 = 4;
    const HOOK_NUMBER: u16 = 1;
    const PRIORITY: u16 = 2;
    const KIND: u16 = 7;
    const TABLE_NAME: u16 = 1;
    const CHAIN_TABLE: u16 = 1;
    const CHAIN_NAME: u16 = 3;
    const BEFORE_ROUTING: u32 = 0;
    const MANGLE: i32 = -150;
    let header = [IPV4, 0, 0, 0];
    let batch = |kind| Message::new(kind, 0, &[0, 0, 0, 10]).unacknowledged();
    let chain = Message::new(NEW_CHAIN, CREATE, &header)
        .with_text(CHAIN_TABLE, RULES)
        .with_text(CHAIN_NAME, CHAIN)
        .with_nested(HOOK, |hook| hook.with(HOOK_NUMBER, &BEFORE_ROUTING.to_be_bytes()).with(PRIORITY, &MANGLE.to_be_bytes()))
        .with_text(KIND, "filter");
    vec![
        batch(BEGIN),
        Message::new(NEW_TABLE, CREATE, &header).with_text(TABLE_NAME, RULES),
        chain,
        rule(TCP, |rule| to_socket(rule, port)),
        rule(UDP, |rule| to_socket(rule, port)),
        rule(ICMP, drop_it),
        batch(END),
    ]
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const REGISTER: u32 = 1;

/// A rule for what comes from the instance by this protocol.
fn rule(protocol: u8, then: impl FnOnce(Message) -> Message) -> Message {
    const NEW_RULE: u16 = 10 << 8 | 6;
    const TABLE: u16 = 1;
    const IN_CHAIN: u16 = 2;
    const EXPRESSIONS: u16 = 4;
    const INTERFACE_NAME: u32 = 6;
    const PROTOCOL: u32 = 16;
    const EQUAL: u32 = 0;
    const UNEQUAL: u32 = 1;
    let mut loopback = [0; 16];
    loopback[..2].copy_from_slice(b"lo");
    Message::new(NEW_RULE, CREATE | APPEND, &[IPV4, 0, 0, 0]).with_text(TABLE, RULES).with_text(IN_CHAIN, CHAIN).with_nested(
        EXPRESSIONS,
        |rule| {
            let rule = compared(loaded(rule, INTERFACE_NAME), UNEQUAL, &loopback);
            then(compared(loaded(rule, PROTOCOL), EQUAL, &[protocol]))
        },
    )
}

fn expression(rule: Message, name: &str, data: impl FnOnce(Message) -> Message) -> Message {
    const ELEMENT: u16 = 1;
    const NAME: u16 = 1;
    const DATA: u16 = 2;
    rule.with_nested(ELEMENT, |element| element.with_text(NAME, name).with_nested(DATA, data))
}

fn loaded(rule: Message, key: u32) -> Message {
    const REGISTER_OF: u16 = 1;
    const KEY: u16 = 2;
    expression(rule, "meta", |data| data.with(REGISTER_OF, &REGISTER.to_be_bytes()).with(KEY, &key.to_be_bytes()))
}

fn compared(rule: Message, how: u32, value: &[u8]) -> Message {
    const REGISTER_OF: u16 = 1;
    const HOW: u16 = 2;
    const DATA: u16 = 3;
    const VALUE: u16 = 1;
    expression(rule, "cmp", |data| {
        let data = data.with(REGISTER_OF, &REGISTER.to_be_bytes()).with(HOW, &how.to_be_bytes());
        data.with_nested(DATA, |data| data.with(VALUE, value))
    })
}

fn to_socket(rule: Message, port: u16) -> Message {
    const REGISTER_OF: u16 = 1;
    const DATA: u16 = 2;
    const VALUE: u16 = 1;
    const FAMILY: u16 = 1;
    const PORT: u16 = 3;
    let rule = expression(rule, "immediate", |data| {
        data.with(REGISTER_OF, &REGISTER.to_be_bytes()).with_nested(DATA, |data| data.with(VALUE, &port.to_be_bytes()))
    });
    expression(rule, "tproxy", |data| data.with(FAMILY, &u32::from(IPV4).to_be_bytes()).with(PORT, &REGISTER.to_be_bytes()))
}

fn drop_it(rule: Message) -> Message {
    const REGISTER_OF: u16 = 1;
    const DATA: u16 = 2;
    const VERDICT: u16 = 2;
    const CODE: u16 = 1;
    const DROP: u32 = 0;
    expression(rule, "immediate", |data| {
        let data = data.with(REGISTER_OF, &0u32.to_be_bytes());
        data.with_nested(DATA, |data| data.with_nested(VERDICT, |verdict| verdict.with(CODE, &DROP.to_be_bytes())))
    })
}
