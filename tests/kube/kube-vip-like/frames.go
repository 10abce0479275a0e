package main

import (
	"net"

	"golang.org/x/sys/unix"
)

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// gratuitousARP has the VIP as sender and as target. kube-vip fills the target hardware address with
// its own in a reply, and with ones in a request.
func gratuitousARP(ip net.IP, mac net.HardwareAddr, asRequest bool) []byte {
	opcode, target := byte(2), mac
	if asRequest {
		opcode, target = 1, broadcast
	}
	message := []byte{0, 1, 8, 0, 6, 4, 0, opcode}
	for _, part := range [][]byte{mac, ip, target, ip} {
		message = append(message, part...)
	}
	return message
}

// sendARP broadcasts a message. The kernel adds the Ethernet header.
func sendARP(index int, message []byte) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{Protocol: 0x0608, Ifindex: index, Halen: 6}
	copy(to.Addr[:], broadcast)
	return unix.Sendto(fd, message, 0, to)
}

// unsolicitedAdvertisement has the flag override (RFC 4861, section 4.4). The kernel fills in the
// checksum.
func unsolicitedAdvertisement(ip net.IP, mac net.HardwareAddr) []byte {
	const override, targetLinkLayer = 0x20, 2
	message := []byte{136, 0, 0, 0, override, 0, 0, 0}
	message = append(message, ip.To16()...)
	message = append(message, targetLinkLayer, 1)
	return append(message, mac...)
}

// sendAdvertisement sends to all nodes, from the interface's link-local address. Receivers drop a
// hop limit other than 255 (RFC 4861, section 7.1.2).
func sendAdvertisement(index int, message []byte) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255)
	if err != nil {
		return err
	}
	to := &unix.SockaddrInet6{ZoneId: uint32(index)}
	copy(to.Addr[:], net.IPv6linklocalallnodes)
	return unix.Sendto(fd, message, 0, to)
}
