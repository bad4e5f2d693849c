//! From an address to connections that may be loaded: CONNECT, SUBSCRIBE and their answers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use codec::mqtt::{
    Connect, ConnectProperties, Packet, PacketId, ProtocolVersion, QoS, RetainHandling, Subscribe,
    SubscribeFilters, Subscription, UserProperties, decode, split_frame,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::Error;
use crate::target::Target;

/// How connections are made.
#[derive(Debug)]
pub(crate) struct Dialer<'a> {
    pub(crate) target: &'a Target,
    pub(crate) version: ProtocolVersion,
    /// Sets the Client Identifiers of this run apart.
    pub(crate) run: u32,
    /// Connections made so far.
    made: usize,
}

/// One connection after CONNACK.
#[derive(Debug)]
pub(crate) struct Dialed {
    pub(crate) stream: TcpStream,
    pub(crate) number: usize,
    /// How many messages the broker takes without an acknowledgement.
    pub(crate) receive_maximum: u16,
}

/// Connections that are made side by side.
const TOGETHER: usize = 128;

/// A broker that is silent for so long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Connections from one source address, below the usual number of ephemeral ports.
const PER_ADDRESS: usize = 10_000;

impl<'a> Dialer<'a> {
    pub(crate) fn new(target: &'a Target, version: ProtocolVersion) -> Dialer<'a> {
        let made = 0;
        let run = std::process::id();
        Dialer {
            target,
            version,
            run,
            made,
        }
    }

    /// Makes `count` connections.
    ///
    /// # Errors
    /// The broker cannot be reached or refuses one.
    pub(crate) fn connect(&mut self, count: usize) -> Result<Vec<Dialed>, Error> {
        let mut dialed = Vec::with_capacity(count);
        while dialed.len() < count {
            let mut opened = Vec::with_capacity(TOGETHER);
            for _ in 0..TOGETHER.min(count - dialed.len()) {
                let number = self.made;
                let open = self.open(number);
                opened.push(open.map_err(|error| failed(number, &error))?);
                self.made += 1;
            }
            for (number, mut stream) in (self.made - opened.len()..).zip(opened) {
                let receive_maximum = self.connack(number, &mut stream)?;
                dialed.push(Dialed {
                    stream,
                    number,
                    receive_maximum,
                });
            }
        }
        Ok(dialed)
    }

    fn open(&self, number: usize) -> std::io::Result<TcpStream> {
        let address = self.target.address;
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        if let Some(source) = source(address, number) {
            socket.bind(&source.into())?;
        }
        socket.connect(&address.into())?;
        socket.set_tcp_nodelay(true)?;
        socket.set_read_timeout(Some(SILENCE_MAX))?;
        let mut stream = TcpStream::from(socket);
        let login = match &self.target.logins[..] {
            [] => None,
            logins => Some(&logins[number % logins.len()]),
        };
        let connect = Connect {
            version: self.version,
            clean_start: true,
            keep_alive: 0,
            client_id: &format!("load-{}-{number}", self.run),
            will: None,
            username: login.map(|login| login.username.as_str()),
            password: login.map(|login| login.password.as_bytes()),
            properties: ConnectProperties::default(),
        };
        let mut out = Vec::new();
        connect.encode(self.version, &mut out);
        stream.write_all(&out)?;
        Ok(stream)
    }

    fn connack(&self, number: usize, stream: &mut TcpStream) -> Result<u16, Error> {
        answer(number, stream, self.version, |packet| match packet {
            Packet::ConnAck(connack) if connack.reason.is_error() => {
                Err(format!("refused with {:?}", connack.reason))
            }
            Packet::ConnAck(connack) => Ok(connack.properties.receive_maximum.unwrap_or(u16::MAX)),
            other => Err(format!("answered with {:?}", other.packet_type())),
        })
    }

    /// Subscribes each connection to its topic.
    ///
    /// # Errors
    /// The broker refuses one, or grants less than `qos`.
    pub(crate) fn subscribe(
        &self,
        dialed: &mut [Dialed],
        qos: QoS,
        topic: impl Fn(usize) -> String,
    ) -> Result<(), Error> {
        let mut at = 0;
        for group in dialed.chunks_mut(TOGETHER) {
            for one in &mut *group {
                let packet = subscribe(&topic(at), qos, self.version)?;
                let sent = one.stream.write_all(&packet);
                sent.map_err(|error| failed(one.number, &error))?;
                at += 1;
            }
            for one in group {
                answer(
                    one.number,
                    &mut one.stream,
                    self.version,
                    |packet| match packet {
                        Packet::SubAck(suback) if *suback.codes == [qos.as_u8()] => Ok(()),
                        Packet::SubAck(suback) => {
                            Err(format!("SUBSCRIBE was answered with {:?}", suback.codes))
                        }
                        other => Err(format!("answered with {:?}", other.packet_type())),
                    },
                )?;
            }
        }
        Ok(())
    }
}

fn subscribe(topic: &str, qos: QoS, version: ProtocolVersion) -> Result<Vec<u8>, Error> {
    let mut filters = Vec::new();
    let subscription = Subscription {
        filter: topic,
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    subscription.put(version, &mut filters);
    let request = Subscribe {
        packet_id: PacketId::new(1).expect("one is not zero"),
        subscription_identifier: None,
        user_properties: UserProperties::default(),
        filters: SubscribeFilters::parse(&filters, version)?,
    };
    let mut out = Vec::new();
    request.encode(version, &mut out);
    Ok(out)
}

/// Another source address for each ten thousand connections over loopback.
fn source(target: SocketAddr, number: usize) -> Option<SocketAddr> {
    let group = u8::try_from(number / PER_ADDRESS).ok()?;
    match target {
        SocketAddr::V4(target) if target.ip().is_loopback() && group > 0 => {
            Some((Ipv4Addr::new(127, 0, 1, group), 0).into())
        }
        _ => None,
    }
}

fn failed(number: usize, error: &std::io::Error) -> Error {
    let why = error.to_string();
    Error::Connect { number, why }
}

/// Waits for one packet.
fn answer<T>(
    number: usize,
    stream: &mut TcpStream,
    version: ProtocolVersion,
    judge: impl FnOnce(&Packet<'_>) -> Result<T, String>,
) -> Result<T, Error> {
    let mut received = Vec::new();
    loop {
        if let Some(frame) = split_frame(&received, u32::MAX)? {
            let packet = decode(&frame, version)?;
            return judge(&packet).map_err(|why| Error::Connect { number, why });
        }
        let mut byte = [0; 512];
        match stream.read(&mut byte) {
            Ok(0) => {
                let why = "the broker closed it".into();
                return Err(Error::Connect { number, why });
            }
            Ok(taken) => received.extend_from_slice(&byte[..taken]),
            Err(error) => return Err(failed(number, &error)),
        }
    }
}
