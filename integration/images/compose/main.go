// Command compose loads a compose file with the code that Docker Compose loads it with, and prints what it has
// understood as JSON. It fails where Docker Compose would: on what the specification doesn't know, on services,
// volumes and configs that aren't there, and on circles.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: compose FILE")
		os.Exit(2)
	}
	if err := show(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func show(file string) error {
	options, err := cli.NewProjectOptions([]string{file}, cli.WithResolvedPaths(false))
	if err != nil {
		return err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return err
	}
	said, err := project.MarshalJSON()
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(said)
	return err
}
