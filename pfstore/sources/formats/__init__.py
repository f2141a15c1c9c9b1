"""Features in the files of other systems, each format a source of its own.

ijb: an npy file [N, D] and a text `*_face_tid_mid.txt` of lines "image template medium" (IJB-B, IJB-C). A subject is
    a template, or what a CSV "template,subject" says.
edb: NIST FRTE's enrolment database: templates in an encoding one after another, and a manifest "id size offset".
gal: OpenBR's binary gallery. A subject is a template's label, or found in its file's name.
frames: folders of pickled pandas frames with a column `feature`, one for each medium (BRIAR). A subject is found in
    the path.
deepface: the pickled list of `identity` and `embedding` of DeepFace. A subject is found in the identity.
encodings: the pickle {"encodings": […], "names": […]} of tutorials for face_recognition. A subject is a name.

HDF5, npz and npy are read by pfstore.sources.hdf5 and pfstore.sources.files. No pickle is ever run.
"""
