// Command interop checks issued certificates with independent programs:
//
//	interop lint                             reads certificates (PEM) from stdin; prints one line per finding
//	                                         of zlint that is an error
//	interop call ADDRESS HOST CA CERT KEY    makes an HTTPS request with crypto/tls; prints the HTTP status
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "lint":
		return check()
	case len(args) == 6 && args[0] == "call":
		return call(args[1], args[2], args[3], args[4], args[5])
	}
	return errors.New("usage: interop lint | interop call ADDRESS HOST CA CERT KEY")
}

func check() error {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	// Rules for authorities that browsers trust (a country in the name, policies, ...) do not apply to a private
	// one.
	private, err := lint.GlobalRegistry().Filter(lint.FilterOptions{
		IncludeSources: lint.SourceList{lint.RFC3279, lint.RFC5280, lint.RFC5480, lint.RFC5891, lint.RFC8813},
	})
	if err != nil {
		return err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := zx509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("not a certificate: %w", err)
		}
		rules := lint.GlobalRegistry()
		if certificate.IsCA {
			rules = private
		}
		for name, result := range zlint.LintCertificateEx(certificate, rules).Results {
			if result.Status >= lint.Error {
				fmt.Printf("%s: %s: %s %s\n", certificate.Subject, name, result.Status, result.Details)
			}
		}
	}
	return nil
}

func call(address, host, ca, cert, key string) error {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return err
	}
	roots, trusted := x509.NewCertPool(), []byte(nil)
	if trusted, err = os.ReadFile(ca); err != nil {
		return err
	}
	if !roots.AppendCertsFromPEM(trusted) {
		return errors.New("no certificate in " + ca)
	}
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	client := http.Client{Transport: &http.Transport{
		DialContext:     dial,
		TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots},
	}}
	answer, err := client.Get("https://" + host + "/")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	fmt.Println(answer.StatusCode)
	return nil
}
