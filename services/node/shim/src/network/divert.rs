//! The rules of a switch, by which whatever an instance sends arrives at the shim's sockets (`nf_tables`; the numbers are
//! those of Linux's `nf_tables.h`).

use super::{
    netlink::{APPEND, CREATE, Message},
    queue,
};

const RULES: &str = "gureum";
const CHAIN: &str = "divert";
const HOLD: &str = "hold";
const IPV4: u8 = 2;

/// TCP and UDP go to the sockets on this port; nothing else has anybody who would take it.
pub fn to_sockets(port: u16) -> Vec<Message> {
    const TABLE_NAME: u16 = 1;
    const MANGLE: i32 = -150;
    let refused = |rule| refuse(compared(loaded(rule, MARK), EQUAL, &queue::REFUSED.to_ne_bytes()));
    batch([
        Message::new(NEW_TABLE, CREATE, &HEADER).with_text(TABLE_NAME, RULES),
        chain(CHAIN, MANGLE),
        rule(CHAIN, TCP, refused),
        rule(CHAIN, TCP, |rule| to_socket(rule, port)),
        rule(CHAIN, UDP, |rule| to_socket(rule, port)),
        rule(CHAIN, ICMP, drop_it),
    ])
}

/// The first packet of each connection waits in the queue. Kernels have one way or the other of saying so.
pub fn ways_to_hold() -> [Vec<Message>; 2] {
    const RAW: i32 = -300;
    let hold = |way: fn(Message) -> Message| batch([chain(HOLD, RAW), rule(HOLD, TCP, |rule| way(first_of_connection(rule)))]);
    [hold(to_queue), hold(to_queue_of_xtables)]
}

fn batch(messages: impl IntoIterator<Item = Message>) -> Vec<Message> {
    const BEGIN: u16 = 16;
    const END: u16 = 17;
    let mark = |kind| Message::new(kind, 0, &[0, 0, 0, 10]).unacknowledged();
    [mark(BEGIN)].into_iter().chain(messages).chain([mark(END)]).collect()
}

/// A chain of rules for what arrives, before it is known where it goes.
fn chain(name: &str, priority: i32) -> Message {
    const HOOK: u16 = 4;
    const HOOK_NUMBER: u16 = 1;
    const PRIORITY: u16 = 2;
    const KIND: u16 = 7;
    const TABLE: u16 = 1;
    const NAME: u16 = 3;
    const BEFORE_ROUTING: u32 = 0;
    Message::new(NEW_CHAIN, CREATE, &HEADER)
        .with_text(TABLE, RULES)
        .with_text(NAME, name)
        .with_nested(HOOK, |hook| hook.with(HOOK_NUMBER, &BEFORE_ROUTING.to_be_bytes()).with(PRIORITY, &priority.to_be_bytes()))
        .with_text(KIND, "filter")
}

const OF_TABLES: u16 = 10 << 8;
const NEW_TABLE: u16 = OF_TABLES;
const NEW_CHAIN: u16 = OF_TABLES | 3;
const NEW_RULE: u16 = OF_TABLES | 6;
const HEADER: [u8; 4] = [IPV4, 0, 0, 0];

// Of what a packet can be asked for.
const MARK: u32 = 3;
const INTERFACE_NAME: u32 = 6;
const PROTOCOL: u32 = 16;

const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const REGISTER: u32 = 1;

/// A rule for what comes from the instance by this protocol.
fn rule(chain: &str, protocol: u8, then: impl FnOnce(Message) -> Message) -> Message {
    const TABLE: u16 = 1;
    const IN_CHAIN: u16 = 2;
    const EXPRESSIONS: u16 = 4;
    let mut loopback = [0; 16];
    loopback[..2].copy_from_slice(b"lo");
    let rule = Message::new(NEW_RULE, CREATE | APPEND, &HEADER).with_text(TABLE, RULES).with_text(IN_CHAIN, chain);
    rule.with_nested(EXPRESSIONS, |rule| {
        let rule = compared(loaded(rule, INTERFACE_NAME), UNEQUAL, &loopback);
        then(compared(loaded(rule, PROTOCOL), EQUAL, &[protocol]))
    })
}

/// Of its flags SYN is set and ACK is not (RFC 9293).
fn first_of_connection(rule: Message) -> Message {
    const BASE: u16 = 2;
    const OFFSET: u16 = 3;
    const LENGTH: u16 = 4;
    const TO: u16 = 1;
    const TRANSPORT_HEADER: u32 = 2;
    const FLAGS: u32 = 13;
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    let rule = expression(rule, "payload", |data| {
        let data = data.with(TO, &REGISTER.to_be_bytes()).with(BASE, &TRANSPORT_HEADER.to_be_bytes());
        data.with(OFFSET, &FLAGS.to_be_bytes()).with(LENGTH, &1u32.to_be_bytes())
    });
    let rule = expression(rule, "bitwise", |data| {
        let data = data.with(1, &REGISTER.to_be_bytes()).with(2, &REGISTER.to_be_bytes()).with(3, &1u32.to_be_bytes());
        data.with_nested(4, |mask| mask.with(1, &[SYN | ACK])).with_nested(5, |change| change.with(1, &[0]))
    });
    compared(rule, EQUAL, &[SYN])
}

fn to_queue(rule: Message) -> Message {
    const NUMBER: u16 = 1;
    const TOTAL: u16 = 2;
    expression(rule, "queue", |data| data.with(NUMBER, &queue::NUMBER.to_be_bytes()).with(TOTAL, &1u16.to_be_bytes()))
}

/// By what the kernel has for `iptables`: `xt_NFQ_info_v3`, padded as it wants it.
fn to_queue_of_xtables(rule: Message) -> Message {
    const NAME: u16 = 1;
    const REVISION: u16 = 2;
    const INFORMATION: u16 = 3;
    let information = [queue::NUMBER.to_ne_bytes(), 1u16.to_ne_bytes(), 0u16.to_ne_bytes(), [0; 2]].concat();
    expression(rule, "target", |data| data.with_text(NAME, "NFQUEUE").with(REVISION, &3u32.to_be_bytes()).with(INFORMATION, &information))
}

/// Answers with a reset.
fn refuse(rule: Message) -> Message {
    const KIND: u16 = 1;
    const RESET: u32 = 1;
    expression(rule, "reject", |data| data.with(KIND, &RESET.to_be_bytes()))
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
